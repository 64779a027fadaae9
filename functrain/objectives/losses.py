"""Per-example losses: values that are not reduced, with their weights. Imports torch only.

`F.cross_entropy(..., reduction="mean")` cannot be accumulated exactly: the mean of means is not the
mean. These return the summands instead.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PerExample(NamedTuple):
    """Loss values and how much each counts; both of the same shape."""

    values: Tensor
    weights: Tensor


def cross_entropy(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, ignore_index: int = -100
) -> PerExample:
    """Cross-entropy of class logits.

    A target that is neither a class nor `ignore_index` makes its value NaN, on every device and
    compiled or not, so that the step refuses the update instead of reading memory out of range.

    Args:
        logits: floating `[B, C]` or `[B, C, ...]`.
        targets: int64 `[B]` or `[B, ...]`, classes 0 to C - 1, or `ignore_index`.
        label_smoothing: weight of the uniform distribution in the target, 0 to 1.
        ignore_index: target whose position has weight 0.

    Returns:
        Values and weights (0 or 1) of the targets' shape.

    Example:
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1])).values
        tensor([0.6931])

    References:
        Label smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing}")
    if targets.dtype.is_floating_point or logits.ndim != targets.ndim + 1:
        raise ValueError(
            "cross_entropy takes logits [B, C, ...] and integer targets [B, ...]; got logits "
            f"{list(logits.shape)} and targets {list(targets.shape)} of {targets.dtype}"
        )
    targets = targets.long()
    counted = targets != ignore_index
    valid = (targets >= 0) & (targets < logits.shape[1])
    values = F.cross_entropy(logits, torch.where(valid, targets, 0), reduction="none", label_smoothing=label_smoothing)
    values = torch.where(valid, values, torch.where(counted, float("nan"), 0.0).to(values.dtype))
    return PerExample(values, counted.to(values.dtype))


def squared_error(predictions: Tensor, targets: Tensor) -> PerExample:
    """Squared error, averaged over all dimensions but the first.

    Args:
        predictions: floating `[B, ...]`.
        targets: of the same shape.

    Returns:
        Values `[B]`, weights one.

    Example:
        >>> squared_error(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)).values
        tensor([5.])
    """
    return _mean_of_rows((_same_shape(predictions, targets) - targets) ** 2)


def absolute_error(predictions: Tensor, targets: Tensor) -> PerExample:
    """Absolute error, averaged over all dimensions but the first; arguments as `squared_error`."""
    return _mean_of_rows((_same_shape(predictions, targets) - targets).abs())


def _same_shape(predictions: Tensor, targets: Tensor) -> Tensor:
    """A [B, 1] network with [B] targets is the one harmless difference; broadcasting would hide a bug."""
    if predictions.shape == (*targets.shape, 1):
        predictions = predictions.squeeze(-1)
    if predictions.shape != targets.shape:
        raise ValueError(f"predictions {list(predictions.shape)} and targets {list(targets.shape)} must have one shape")
    return predictions


def _mean_of_rows(values: Tensor) -> PerExample:
    rows = mean_of_rows(values)
    return PerExample(rows, torch.ones_like(rows))


def mean_of_rows(values: Tensor) -> Tensor:
    """Mean over all dimensions but the first: `[B, ...]` -> `[B]`."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values
