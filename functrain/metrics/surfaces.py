"""The Hausdorff distance between predicted and true regions of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from functrain.foundation.torch_internals import is_eager
from functrain.metrics.accumulating import Accumulator, Metric, Statistic, Values
from functrain.metrics.averaging import averaged
from functrain.metrics.counts import classes_of
from functrain.metrics.examples import Labels, Task

_ELEMENTS = 1 << 24  # of an intermediate result, at a time


@dataclass(frozen=True)
class Surfaces(Statistic):
    """`[2, C]`: the weighted sum of the distances of each class's regions, and the weight of its images.

    Attributes:
        labels: how predictions are read.
        spacing: between the centres of two pixels, along rows and along columns of the image.
    """

    labels: Labels
    spacing: tuple[float, float]

    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Accumulator:
        """Of a batch of images `[B, C, H, W]`, or `[B, H, W]` for a binary task."""
        found = self.labels.read(predictions, targets, weight)
        if targets.ndim == 4 and targets.shape[1] == 1:
            targets = targets.squeeze(1)
        if found.task == "multilabel" or targets.ndim != 3:
            raise ValueError(
                f"it takes images, predictions [B, C, H, W] and targets [B, H, W]; got targets {list(targets.shape)}"
            )
        shape = targets.shape
        weights = found.weight.reshape(shape)
        counted = weights != 0
        if found.task == "binary":
            predicted, truth = self.labels.positive(found.scores).reshape(1, *shape), found.targets.reshape(1, *shape)
        else:
            numbers = torch.arange(classes_of(self.labels, found), device=targets.device).view(-1, 1, 1, 1)
            predicted, truth = (each.reshape(1, *shape) == numbers for each in (found.predicted, found.targets))
        distances, valid = distance(predicted & counted, truth & counted, self.spacing)
        of_image = weights.flatten(1).amax(1) * valid  # [C, B]
        sums = torch.stack([(of_image * distances).sum(1), of_image.sum(1)])
        return {found.task: sums, "refused": found.refused}


def hausdorff_distance(
    average: Literal["micro", "macro", "none"] = "micro",
    *,
    include_background: bool = False,
    spacing: Sequence[float] = (1.0, 1.0),
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """How far the outline of a predicted region is from that of the true one, at the worst pixel; the mean over images.

    An image without a class, in prediction and target, has no part in it. Where one of the two is empty, the distance
    is the diagonal of the image.

    Args:
        average: over all images and classes ("micro"), over the classes' means ("macro"), or one for each class too
            ("none"). A binary task has the positive class alone.
        include_background: count class 0 among the classes.
        spacing: between the centres of two pixels, along rows and along columns of the image.
        task: "binary" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits; else probabilities.
        threshold: the probability above which a pixel is predicted (binary).
        num_classes: needed where predictions are class numbers.

    Example:
        >>> truth = torch.zeros(1, 8, 8, dtype=torch.int64)
        >>> truth[0, 2, 2] = 1
        >>> scores = torch.full((1, 8, 8), -1.0)
        >>> scores[0, 5, 6] = 1.0
        >>> hausdorff_distance()(scores, truth)
        tensor(5., dtype=torch.float64)

    References:
        Huttenlocher, Klanderman and Rucklidge 1993, "Comparing images using the Hausdorff distance". The distance
        transform: Felzenszwalb and Huttenlocher 2012, "Distance Transforms of Sampled Functions".
    """
    if average not in ("micro", "macro", "none"):
        raise ValueError(f"average must be 'micro', 'macro' or 'none'; got {average!r}")
    rows, columns = (float(each) for each in spacing)
    if not (rows > 0 and columns > 0):
        raise ValueError(f"spacing must be two numbers greater than 0; got {spacing!r}")
    labels = Labels(task, from_logits, threshold, num_classes)
    value = _Distance(average, include_background)
    return Metric("hausdorff_distance", Surfaces(labels, (rows, columns)), value)


@torch.no_grad()
def distance(predicted: Tensor, truth: Tensor, spacing: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The Hausdorff distance between the outlines of regions.

    Args:
        predicted, truth: bool `[C, B, H, W]`.
        spacing: see `Surfaces`.

    Returns:
        float64 `[C, B]`; and bool `[C, B]`, whether there is a region in one of the two.
    """
    classes, images, height, width = predicted.shape
    outlines = [outline(each.reshape(-1, height, width)) for each in (predicted, truth)]
    there, wanted = (each.flatten(1).any(1) for each in outlines)
    parts = _parts(*outlines)
    squares = torch.cat([torch.maximum(_directed(a, b, spacing), _directed(b, a, spacing)) for a, b in parts])
    diagonal = ((height - 1) * spacing[0]) ** 2 + ((width - 1) * spacing[1]) ** 2
    squares = torch.where(there & wanted, squares, diagonal)
    return squares.sqrt().view(classes, images), (there | wanted).view(classes, images)


def outline(regions: Tensor) -> Tensor:
    """The pixels of each region, bool `[N, H, W]`, with a neighbour above, below or beside them that is not in it.

    Example:
        >>> outline(torch.ones(1, 3, 3, dtype=torch.bool)).sum()
        tensor(8)
    """
    padded = torch.nn.functional.pad(regions, (1, 1, 1, 1))
    inside = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    return regions & ~inside


def _parts(left: Tensor, right: Tensor) -> list[tuple[Tensor, Tensor]]:
    """At once, a part of the images at a time; within a graph the intermediate results are fused."""
    count, height, width = left.shape
    at_once = max(1, _ELEMENTS // (height * width * max(height, width)))
    if not is_eager() or count <= at_once:
        return [(left, right)]
    return list(zip(left.split(at_once), right.split(at_once), strict=True))


def _directed(start: Tensor, end: Tensor, spacing: tuple[float, float]) -> Tensor:
    """The largest square of a distance from a pixel of `start` to the nearest one of `end`, `[N]`."""
    _, height, width = end.shape
    far = torch.finfo(torch.float64).max / 4
    down, across = (_squares(size, gap, end.device) for size, gap in ((height, spacing[0]), (width, spacing[1])))
    in_column = torch.where(end[:, None], down[None, :, :, None], far).amin(2)  # [N, H, W]
    nearest = (in_column[:, :, None] + across).amin(3)
    return torch.where(start, nearest, 0.0).flatten(1).amax(1)


def _squares(size: int, gap: float, device: torch.device) -> Tensor:
    at = torch.arange(size, dtype=torch.float64, device=device) * gap
    return (at[:, None] - at).square()


@dataclass(frozen=True)
class _Distance:
    average: str
    include_background: bool

    def __call__(self, found: Accumulator) -> Values:
        if "binary" in found:
            return (found["binary"][0] / found["binary"][1])[0]
        sums, weight = found["multiclass"] if self.include_background else found["multiclass"][:, 1:]
        if self.average == "micro":
            return sums.sum() / weight.sum()
        return averaged(sums / torch.where(weight > 0, weight, 1.0), self.average, weight > 0, weight)
