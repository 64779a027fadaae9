"""Losses of the difference between predicted and true numbers, one value per example.

A difference that is not finite makes its value so, but has gradient 0: an example that does not count can be given
weight 0 afterwards, and its NaN does not reach the parameters.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.metrics.weighted_sums import PerExample, mean_of_rows, wide


def squared_error(predictions: Tensor, targets: Tensor) -> PerExample:
    """Squared error, averaged over all dimensions but the first.

    Args:
        predictions: floating `[B, ...]`.
        targets: of the same shape.

    Returns:
        Values `[B]`, weights one.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> squared_error(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)).values
        tensor([5.])
    """
    return _of_difference(wide(_same_shape(predictions, targets)) - targets, torch.square)


def absolute_error(predictions: Tensor, targets: Tensor) -> PerExample:
    """Absolute error, averaged over all dimensions but the first; arguments as `squared_error`.

    Example:
        >>> absolute_error(torch.tensor([[1.0, -3.0]]), torch.zeros(1, 2)).values
        tensor([2.])
    """
    return _of_difference(wide(_same_shape(predictions, targets)) - targets, torch.abs)


def huber(predictions: Tensor, targets: Tensor, *, delta: float = 1.0) -> PerExample:
    """Huber loss: `d^2 / 2` up to a difference d of `delta`, then `delta (|d| - delta / 2)`.

    Args:
        predictions: floating `[B, ...]`.
        targets: of the same shape.
        delta: where the parabola becomes a line, greater than 0.

    Returns:
        Values `[B]`, averaged over all dimensions but the first; weights one.

    Raises:
        ValueError: if the shapes differ, or for a `delta` out of range.

    Example:
        >>> huber(torch.tensor([1.0, 3.0]), torch.zeros(2)).values
        tensor([0.5000, 2.5000])

    References:
        Huber 1964, "Robust Estimation of a Location Parameter".
    """
    if not 0.0 < delta < float("inf"):
        raise ValueError(f"delta must be greater than 0 and finite, got {delta}")
    predictions = wide(_same_shape(predictions, targets))
    return _of_difference(
        predictions - targets.to(predictions.dtype),
        lambda difference: F.huber_loss(difference, torch.zeros_like(difference), reduction="none", delta=delta),
    )


def smooth_l1(predictions: Tensor, targets: Tensor, *, beta: float = 1.0) -> PerExample:
    """Smooth L1 loss: `d^2 / (2 beta)` up to a difference d of `beta`, then `|d| - beta / 2`: `huber / beta`.

    Args:
        predictions: floating `[B, ...]`.
        targets: of the same shape.
        beta: where the parabola becomes a line, greater than 0; for 0 take `absolute_error`.

    Returns:
        Values `[B]`, averaged over all dimensions but the first; weights one.

    Raises:
        ValueError: if the shapes differ, or for a `beta` out of range.

    Example:
        >>> smooth_l1(torch.tensor([1.0, 4.0]), torch.zeros(2), beta=2.0).values
        tensor([0.2500, 3.0000])

    References:
        Girshick 2015, "Fast R-CNN", equation 3.
    """
    if not 0.0 < beta < float("inf"):
        raise ValueError(f"beta must be greater than 0 and finite, got {beta}; for 0 take absolute_error")
    predictions = wide(_same_shape(predictions, targets))
    return _of_difference(
        predictions - targets.to(predictions.dtype),
        lambda difference: F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none", beta=beta),
    )


def _same_shape(predictions: Tensor, targets: Tensor) -> Tensor:
    """A [B, 1] network with [B] targets is the one harmless difference; broadcasting would hide a bug."""
    if predictions.shape == (*targets.shape, 1):
        predictions = predictions.squeeze(-1)
    if predictions.shape != targets.shape:
        raise ValueError(f"predictions {list(predictions.shape)} and targets {list(targets.shape)} must have one shape")
    return predictions


def _of_difference(difference: Tensor, loss: Callable[[Tensor], Tensor]) -> PerExample:
    """The mean over each row of a loss of single differences."""
    finite = difference.isfinite()
    values = torch.where(finite, loss(torch.where(finite, difference, 0.0)), difference.detach().abs())
    rows = mean_of_rows(values)
    return PerExample(rows, torch.ones_like(rows))
