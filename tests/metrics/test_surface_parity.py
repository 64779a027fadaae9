"""The Hausdorff distance is that of SciPy and of torchmetrics; empty regions."""

import pytest
import torch
from scipy import spatial
from torch import Tensor
from torchmetrics.functional.segmentation import hausdorff_distance as tm_hausdorff

from functrain import metrics
from functrain.metrics.surfaces import outline


def blobs(seed: int) -> Tensor:
    """Class numbers `[3, 9, 12]` of 3 classes, all of which are in each image."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.nn.functional.interpolate(torch.rand(3, 1, 3, 4, generator=generator), size=(9, 12))[:, 0]
    found = (classes * 3).long()
    found[:, 0, :3] = torch.arange(3)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_the_hausdorff_distance_is_that_of_the_outlines(seed: int, spacing: tuple[float, float]) -> None:
    predicted, truth = blobs(seed), blobs(seed + 10)
    scores = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1).float()
    wanted = torch.zeros(3, 3, dtype=torch.float64)
    scale = torch.tensor(spacing, dtype=torch.float64)
    for image in range(3):
        for label in range(3):
            ends = [outline((each[image] == label)[None])[0].nonzero() * scale for each in (predicted, truth)]
            wanted[image, label] = max(spatial.distance.directed_hausdorff(*pair)[0] for pair in (ends, ends[::-1]))
    found = metrics.hausdorff_distance("none", include_background=True, spacing=spacing)(scores, truth)
    torch.testing.assert_close(found["class"], wanted.mean(0), rtol=1e-12, atol=1e-12)
    mean = metrics.hausdorff_distance(spacing=spacing)(scores, truth)
    assert mean.item() == pytest.approx(wanted[:, 1:].mean().item())
    if spacing == (1.0, 1.0):
        masks = [torch.nn.functional.one_hot(each, 3).movedim(-1, 1).bool() for each in (predicted, truth)]
        # torchmetrics' own transform mixes rows and columns of images that are not square: compare square ones.
        square = [torch.nn.functional.pad(each, (0, 0, 0, 3)) for each in masks]
        theirs = tm_hausdorff(*square, num_classes=3, include_background=True)
        torch.testing.assert_close(theirs.double().mean(0), found["class"], rtol=1e-6, atol=1e-6)


def test_empty_regions_have_a_convention() -> None:
    nothing, corner = torch.full((1, 4, 5), -1.0), torch.zeros(1, 4, 5, dtype=torch.int64)
    corner[0, 0, 0] = 1
    assert metrics.hausdorff_distance()(nothing, corner).item() == 5.0  # the diagonal
    assert metrics.hausdorff_distance()(nothing, torch.zeros_like(corner)).isnan()
    both = metrics.hausdorff_distance()(torch.cat([nothing, corner * 2.0 - 1]), torch.cat([corner, corner]))
    assert both.item() == 2.5
