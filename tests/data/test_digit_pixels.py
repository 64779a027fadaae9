"""The digits with a target for each pixel."""

import pytest
import torch

from functrain.data import Loader, digits, masked_digits, segmented_digits
from functrain.foundation.keys import torch_seed


def test_hidden_patches_are_whole_and_as_many_as_asked_for():
    for patch, fraction in ((1, 0.25), (2, 0.5), (4, 0.75)):
        hidden, whole = masked_digits("val", patch=patch, fraction=fraction).tensors
        assert torch.equal(whole, digits("val").tensors[0])
        data = masked_digits("train", patch=patch, fraction=fraction)
        images = torch.ones(1, 8, 8)
        with torch_seed(0):
            visible, same = data.transform(images)
        blocks = visible.view(8 // patch, patch, 8 // patch, patch)
        assert torch.equal(blocks.amax((1, 3)), blocks.amin((1, 3)))
        assert visible.mean().item() == 1 - fraction
        assert same is images
        assert torch.equal(hidden, torch.where(hidden == 0, torch.zeros(()), whole))


def test_training_images_hide_other_patches_in_each_epoch_and_the_others_stay():
    for split, changes in (("train", True), ("val", False)):
        loader = Loader(masked_digits(split), 8, shuffle=False)
        first, again, later = (next(loader.stream(1).batches(epoch))[0] for epoch in (0, 0, 1))
        assert torch.equal(first, again)
        assert torch.equal(first, later) is not changes
    assert torch.equal(masked_digits("val").tensors[0], masked_digits("val").tensors[0])


def test_ink_has_the_class_of_its_digit():
    images, classes = segmented_digits("train").tensors
    labels = digits("train").tensors[1]
    assert torch.equal(classes > 0, images[:, 0] > 0.25)
    assert torch.equal(classes.amax((1, 2)), labels + 1)
    few, _ = segmented_digits("train", fraction=0.1).tensors
    assert 100 <= len(few) <= 115
    assert len(segmented_digits("val", fraction=0.1)) == 360


@pytest.mark.parametrize("fraction", [0.0, 1.5, -1.0])
def test_fractions_out_of_range_are_refused(fraction):
    for data in (masked_digits, segmented_digits):
        with pytest.raises(ValueError, match="fraction must be"):
            data("train", fraction=fraction)
