"""Losses of the overlap of a predicted region with the true one, one value per example.

With p the predicted probability and t the true one, summed over the positions of an example and class:

    dice = 1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)
    iou  = 1 - (sum(p t) + smooth) / (sum(p) + sum(t) - sum(p t) + smooth)

averaged over the classes. A class that is neither there nor predicted has a loss of 0, thanks to `smooth`.
The sums are those of one example, never of the batch, so that micro-batches add up.
"""

import torch
from torch import Tensor

from functrain.metrics.weighted_sums import PerExample, wide
from functrain.objectives.losses.labels import Labels, binary_labels, class_labels, one_hot


def dice(logits: Tensor, targets: Tensor, *, smooth: float = 1.0, ignore_index: int = -100) -> PerExample:
    """Soft Dice loss of class logits.

    Args:
        logits: floating `[B, C, ...]`.
        targets: int64 `[B, ...]`, classes 0 to C - 1, or `ignore_index`; another makes its example's value NaN.
        smooth: added above and below the line, greater than 0.
        ignore_index: target whose position has no part in the sums.

    Returns:
        Values `[B]`; weights `[B]`, 1, or 0 for an example all of whose positions are ignored.

    Raises:
        ValueError: for shapes that do not fit, or an option out of range.

    Example:
        >>> logits = 100 * torch.eye(2)[None]  # of two positions
        >>> dice(logits, torch.tensor([[0, 1]])).values, dice(logits, torch.tensor([[1, 0]]), smooth=1e-6).values
        (tensor([0.]), tensor([1.0000]))

    References:
        Milletari et al. 2016, "V-Net", section 3, with sums in place of sums of squares; Sudre et al. 2017.
    """
    logits, labels = class_labels("dice", logits, targets, ignore_index)
    return _dice(*_regions(wide(logits).softmax(1), one_hot(labels.value, logits.shape[1]), labels), labels, smooth)


def iou(logits: Tensor, targets: Tensor, *, smooth: float = 1.0, ignore_index: int = -100) -> PerExample:
    """Soft intersection over union (Jaccard) loss of class logits; arguments and result as of `dice`.

    Example:
        >>> iou(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])).values  # 1 - (1 + 1) / (2 + 2 - 1 + 1)
        tensor([0.5000])

    References:
        Rahman and Wang 2016, "Optimizing Intersection-Over-Union in Deep Neural Networks", equation 3.
    """
    logits, labels = class_labels("iou", logits, targets, ignore_index)
    return _iou(*_regions(wide(logits).softmax(1), one_hot(labels.value, logits.shape[1]), labels), labels, smooth)


def binary_dice(logits: Tensor, targets: Tensor, *, smooth: float = 1.0, ignore_index: int = -100) -> PerExample:
    """Soft Dice loss of one region, by the sigmoid of one logit per position.

    Args:
        logits: floating `[B, ...]`, or `[B, 1, ...]`.
        targets: `[B, ...]`, 0, 1 or in between, or `ignore_index`; another makes its example's value NaN.
        smooth: as of `dice`.
        ignore_index: as of `dice`.

    Returns:
        Values and weights `[B]`, as of `dice`.

    Raises:
        ValueError: as `dice`.

    Example:
        >>> binary_dice(torch.tensor([[100.0, -100.0]]), torch.tensor([[1, 0]])).values
        tensor([0.])
    """
    logits, labels = binary_labels("binary_dice", logits, targets, ignore_index)
    return _dice(*_regions(logits.sigmoid().unsqueeze(1), labels.value.unsqueeze(1), labels), labels, smooth)


def binary_iou(logits: Tensor, targets: Tensor, *, smooth: float = 1.0, ignore_index: int = -100) -> PerExample:
    """Soft intersection over union loss of one region; arguments and result as of `binary_dice`.

    Example:
        >>> binary_iou(torch.tensor([[100.0, -100.0]]), torch.tensor([[1, 0]])).values
        tensor([0.])
    """
    logits, labels = binary_labels("binary_iou", logits, targets, ignore_index)
    return _iou(*_regions(logits.sigmoid().unsqueeze(1), labels.value.unsqueeze(1), labels), labels, smooth)


def _regions(probabilities: Tensor, truth: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """Intersection, and sum of both regions, `[B, C]` each, over the valid positions."""
    inside = labels.valid.unsqueeze(1)
    predicted = torch.where(inside, probabilities, 0.0)
    truth = torch.where(inside, truth.to(probabilities.dtype), 0.0)
    return _sum_positions(predicted * truth), _sum_positions(predicted + truth)


def _sum_positions(regions: Tensor) -> Tensor:
    return regions.flatten(2).sum(2) if regions.ndim > 2 else regions


def _dice(intersection: Tensor, both: Tensor, labels: Labels, smooth: float) -> PerExample:
    return _mean_of_classes(2 * intersection, both, labels, smooth)


def _iou(intersection: Tensor, both: Tensor, labels: Labels, smooth: float) -> PerExample:
    return _mean_of_classes(intersection, both - intersection, labels, smooth)


def _mean_of_classes(overlap: Tensor, size: Tensor, labels: Labels, smooth: float) -> PerExample:
    if not 0.0 < smooth < float("inf"):
        raise ValueError(f"smooth must be greater than 0 (else an absent class is 0 / 0), got {smooth}")
    values = (1 - (overlap + smooth) / (size + smooth)).mean(1)
    counted = labels.counted.reshape(len(values), -1)
    refused = (labels.counted & ~labels.valid).reshape(len(values), -1).any(1)
    return PerExample(torch.where(refused, float("nan"), values), counted.any(1).to(values.dtype))
