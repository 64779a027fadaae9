"""Transforms are pure functions of a sample and a key; workers and resumes change none of their draws."""

from unittest import mock

import numpy as np
import pytest
import torch
from data_helpers import same_bits
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, Subset

from functrain.checkpoint import Checkpointer
from functrain.data import Arrays, Compose, Loader, Standardise, Transformed, TransformedBatch, as_stream, transforms
from functrain.data.sampling import labels_of
from functrain.data.transforms import CenterCrop, CutMix, Flip, MixUp, Noise, RandomCrop, Resize
from functrain.foundation.errors import DataError

IMAGES = torch.rand(23, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(23) % 4
ALL = {
    "noise": Noise(0.2),
    "flip": Flip(0.5, 0.5),
    "random_crop": RandomCrop(8, padding=2),
    "center_crop": CenterCrop(6),
    "resize": Resize((5, 9)),
    "standardise": Standardise(torch.zeros(3, 1, 1), torch.ones(3, 1, 1)),
    "compose": Compose(Flip(), RandomCrop((4, 6), padding=1), Noise(0.1)),
}
MIXED = {"mixup": MixUp(classes=4), "cutmix": CutMix(classes=4)}
keys = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize("name", ALL)
def test_a_transform_is_a_function_of_sample_and_key_and_changes_neither_sample_nor_generators(name):
    sample, before, state = (IMAGES[0].clone(), 7), IMAGES[0].clone(), torch.get_rng_state()
    first, again = ALL[name](sample, 2**64 - 1), ALL[name](sample, 2**64 - 1)
    assert same_bits(first, again)
    assert first[1] == 7
    assert torch.equal(sample[0], before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", MIXED)
def test_a_mixing_transform_is_a_function_of_batch_and_key(name):
    batch, before, state = (IMAGES.clone(), LABELS.clone()), IMAGES.clone(), torch.get_rng_state()
    first, again = MIXED[name](batch, 3), MIXED[name](batch, 3)
    assert same_bits(first, again)
    assert not torch.equal(first[0], MIXED[name](batch, 4)[0])
    assert torch.equal(batch[0], before)
    assert torch.equal(torch.get_rng_state(), state)


class Own(Dataset):
    """A data set of the user's that draws itself."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        return IMAGES[index] + self.rng.random() + torch.rand(()), LABELS[index]


AUGMENT = ALL["compose"]
LOADERS = {
    "arrays": lambda workers: Loader(Transformed(Arrays(IMAGES, LABELS), AUGMENT), 4, num_workers=workers),
    "own": lambda workers: Loader(Transformed(Own(), AUGMENT), 4, num_workers=workers),
    "subset": lambda workers: Loader(
        Transformed(Subset(Arrays(IMAGES, LABELS), range(3, 20)), AUGMENT), 4, num_workers=workers
    ),
    "mixup": lambda workers: Loader(Arrays(IMAGES, LABELS), 4, batch_transform=MixUp(classes=4), num_workers=workers),
    "DataLoader": lambda workers: DataLoader(
        Transformed(Own(), AUGMENT),
        4,
        shuffle=True,
        collate_fn=TransformedBatch(CutMix(classes=4)),
        num_workers=workers,
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_workers_and_resume_change_no_bit(kind):
    alone = as_stream(LOADERS[kind](0), 5)
    whole = list(alone.batches(1))
    assert same_bits(whole[3:], list(alone.batches(1, start=3)))
    assert not same_bits(whole, list(alone.batches(2)))
    workers = as_stream(LOADERS[kind](1), 5)
    assert same_bits(whole, list(workers.batches(1)))
    workers.close()


@pytest.mark.parametrize("mixing", [MixUp(classes=4), CutMix(classes=4)])
@pytest.mark.parametrize("rows", [range(len(LABELS)), range(3, 20)])
def test_batches_that_come_from_tensors_at_once_are_mixed_as_those_of_single_samples(mixing, rows):
    class Read(Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, index):
            return IMAGES[rows[index]], LABELS[rows[index]]

    stored = Subset(Arrays(IMAGES, LABELS), rows)
    one, other = (as_stream(Loader(data, 4, batch_transform=mixing), 5) for data in (stored, Read()))
    with mock.patch.object(Arrays, "__getitem__", side_effect=AssertionError("a sample was read singly")):
        at_once = list(one.batches(1))
    singly = list(other.batches(1))
    assert same_bits(at_once, singly)
    assert [type(batch) for batch in at_once] == [type(batch) for batch in singly]


def test_a_transform_that_draws_from_other_generators_is_repeatable_on_batches_from_tensors():
    def shaken(batch, key):
        return [batch[0] + torch.rand(()) + np.random.rand() + key % 7, batch[1]]

    stream = as_stream(Loader(Arrays(IMAGES, LABELS), 4, batch_transform=shaken), 5)
    whole = list(stream.batches(1))
    assert same_bits(whole, list(stream.batches(1)))
    assert same_bits(whole[2:], list(stream.batches(1, start=2)))
    assert not same_bits(whole, list(stream.batches(2)))


def test_a_sample_does_not_depend_on_its_companions():
    data = Transformed(Arrays(torch.arange(23)), lambda sample, key: (sample[0], key % 2**62))
    first, second = (
        {int(index): int(key) for batch in Loader(data, size).stream(5).batches(0) for index, key in zip(*batch)}
        for size in (4, 7)
    )
    assert first == second
    assert len(set(first.values())) == 23


@given(keys)
def test_an_image_and_its_mask_are_changed_alike(key):
    image = torch.arange(64.0).view(1, 8, 8)
    sample = {"inputs": image, "targets": image[0].long()}
    of = ("inputs", "targets")
    together = Compose(Flip(0.5, 0.5, of=of), RandomCrop(5, padding=1, fill={"inputs": -1.0, "targets": -1}, of=of))
    found = together(sample, key)
    assert torch.equal(found["inputs"][0].long(), found["targets"])
    assert found["targets"].dtype == torch.int64


def test_flips_and_crops_come_as_often_as_they_should():
    image = torch.tensor([[0.0, 1.0]])
    flipped = sum(bool(Flip(0.3)(image, key)[0, 0]) for key in range(2000))
    assert abs(flipped - 600) < 5 * (2000 * 0.3 * 0.7) ** 0.5
    places = [RandomCrop(1)(torch.arange(6.0).view(2, 3), key).item() for key in range(1200)]
    counts = torch.tensor(places).long().bincount(minlength=6)
    assert (counts - 200).abs().max() < 5 * 200**0.5


def test_resizing_keeps_the_mean_of_an_image_and_the_classes_of_a_mask():
    assert Resize(4)(torch.full((3, 8, 8), 0.5)).allclose(torch.tensor(0.5))
    mask = torch.tensor([[1, 2], [3, 4]])
    assert torch.equal(Resize(4)(mask), mask.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert torch.equal(Resize(2)(Resize(4)(mask)), mask)


@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from([None, 0, 1, -1]), st.integers(0, 99))
def test_standardised_training_data_have_mean_0_and_deviation_1(count, entries, per, seed):
    values = torch.randn(count, entries, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 7 + 3
    fitted = Standardise.fit(Arrays(values), per=per)
    found = torch.stack([fitted((row,))[0] for row in values])
    dims = {None: (0, 1, 2), 0: (0, 2), 1: (0, 1), -1: (0, 1)}[per]
    assert found.mean(dims).abs().max() < 1e-5
    if count * 3 > 1 and per != 1 and per != -1:
        assert (found.std(dims, correction=0) - 1).abs().max() < 1e-5
    torch.testing.assert_close(fitted.inverse((found[0],))[0], values[0], rtol=1e-5, atol=1e-5)


def test_a_fit_reads_samples_in_parts_and_equals_the_one_of_tensors_in_memory(monkeypatch):
    monkeypatch.setattr("functrain.data.transforms.standardising.AT_ONCE", 5)
    read = Transformed(Arrays(IMAGES, LABELS), lambda sample, key: sample)
    first, second = Standardise.fit(read), Standardise.fit(Arrays(IMAGES, LABELS))
    torch.testing.assert_close(first.mean, second.mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(first.std, second.std, rtol=1e-6, atol=0)
    assert first.mean.shape == (3, 1, 1)


def test_a_fitted_transform_is_a_pytree_that_a_checkpoint_holds(tmp_path):
    fitted = Standardise.fit(Arrays(IMAGES, LABELS))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"standardise": fitted}, step=1)
        empty = Standardise(torch.zeros(3, 1, 1), torch.zeros(3, 1, 1))
        restored = checkpointer.restore({"standardise": empty}).tree["standardise"]
    assert torch.equal(restored.mean, fitted.mean)
    assert torch.equal(restored.std, fitted.std)


@given(st.integers(2, 6), keys)
def test_mixed_targets_are_shares_with_the_sum_1(classes, key):
    batch = torch.rand(9, 1, 4, 4), torch.arange(9) % classes, torch.rand(9)
    for mixing in (MixUp(classes), CutMix(classes)):
        inputs, targets, weight = mixing(batch, key)
        assert targets.shape == (9, classes)
        torch.testing.assert_close(targets.sum(1), torch.ones(9), rtol=1e-6, atol=0)
        assert (targets >= 0).all()
        assert weight.shape == (9,)
        assert inputs.shape == batch[0].shape


def test_the_share_of_a_cut_image_is_the_share_of_its_target():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 5, 7)  # each is one value, its own number
    for key in range(30):
        mixed, targets = CutMix(classes=6)((images, torch.arange(6)), key)
        for image, share in zip(mixed, targets):
            values = image.flatten().long().bincount(minlength=6) / 35
            torch.testing.assert_close(values, share, rtol=1e-5, atol=1e-6)


def test_classes_of_pixels_are_cut_as_the_pixels_are():
    images = torch.rand(5, 1, 6, 6)
    for key in range(9):
        mixed, masks = CutMix()((images, (images[:, 0] * 1000).long()), key)
        assert torch.equal((mixed[:, 0] * 1000).long(), masks)


def test_numbers_are_mixed_without_classes_and_a_label_that_does_not_count_has_no_share():
    inputs, targets = MixUp()((torch.eye(4), torch.eye(4)), 1)
    assert torch.equal(inputs, targets)
    _, targets = MixUp(classes=2)((torch.zeros(3, 1), torch.full((3,), -100)), 1)
    assert not targets.any()


def test_the_labels_of_transformed_samples_are_those_of_the_data():
    data = Transformed(Subset(Arrays(IMAGES, LABELS), [2, 1]), Flip())
    assert list(labels_of(data)) == [2, 1]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Noise(-1), ValueError, "std must be a finite number, 0 or more; got -1"),
        (lambda: Noise()(torch.arange(3), 0), TypeError, "Noise takes floating-point numbers, got torch.int64"),
        (lambda: Noise()({"a": torch.zeros(1)}, 0), ValueError, "has the parts 'a': say which one"),
        (lambda: Noise(of="b")({"a": torch.zeros(1)}, 0), ValueError, "there is no part 'b'; the parts are 'a'"),
        (lambda: Noise()((7, 8), 0), TypeError, "the part '0' of the sample is a int"),
        (lambda: Flip(1.5), ValueError, "horizontal must be a probability"),
        (lambda: Flip()(torch.zeros(3), 0), ValueError, r"Flip takes images \[..., H, W\], got a tensor \[3\]"),
        (lambda: RandomCrop(0), ValueError, "size must be the edge in pixels"),
        (
            lambda: RandomCrop(9)(torch.zeros(1, 8, 8), 0),
            ValueError,
            r"needs an image at least that large.*\[1, 8, 8\]",
        ),
        (
            lambda: RandomCrop(2, fill={"1": 0})((torch.zeros(2, 2),), 0),
            ValueError,
            "fill has no value for the part '0'",
        ),
        (lambda: Compose([Flip()]), TypeError, r"write Compose\(first, second\), without a list"),
        (lambda: MixUp(classes=1), ValueError, "classes must be a whole number >= 2"),
        (lambda: MixUp(alpha=0), ValueError, "alpha must be a finite number greater than 0"),
        (lambda: MixUp()((IMAGES, LABELS), 0), ValueError, "say how many classes there are"),
        (lambda: MixUp(3)((IMAGES, LABELS), 0), ValueError, "classes=3, but the batch has the label 3"),
        (lambda: MixUp(4)((IMAGES.long(), LABELS), 0), TypeError, "MixUp takes floating-point numbers"),
        (lambda: CutMix(4)((torch.zeros(4, 2), LABELS[:4]), 0), ValueError, r"CutMix takes images \[B, ..., H, W\]"),
        (lambda: Transformed(Arrays(LABELS), MixUp(4)), TypeError, "transforms batches, not samples"),
        (lambda: Transformed(iter([]), Flip()), TypeError, "Transformed needs a data set"),
        (lambda: Loader(Arrays(LABELS), 2, batch_transform=3), TypeError, "batch_transform must be a function"),
        (lambda: Standardise.fit(Arrays(LABELS.float()), per=1), ValueError, "take per=None"),
        (
            lambda: Standardise.fit(Arrays(torch.tensor([[0.0], [float("nan")]]))),
            DataError,
            "example 1 has a value that",
        ),
    ],
)
def test_wrong_use_is_refused_with_the_way_out(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_every_registered_transform_is_public():
    assert {each.__name__ for each in transforms.REGISTRY.values()} <= set(transforms.__all__)
