"""Losses of yes or no, alone or several to an example."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.metrics.weighted_sums import PerExample
from functrain.objectives.losses.labels import binary_labels


def binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    pos_weight: float | Sequence[float] | None = None,
    ignore_index: int = -100,
) -> PerExample:
    """Cross-entropy of independent logits, `-pos_weight y log p - (1 - y) log(1 - p)` with p their sigmoid.

    Args:
        logits: floating `[B, ...]`, or `[B, 1, ...]`.
        targets: `[B, ...]`, 0, 1 or in between, or `ignore_index`; anything else makes its value NaN.
        pos_weight: factor of the positive part, greater than 0: a number, or one for each label of the last
            dimension. As in torch it does not enter the weights.
        ignore_index: target whose position has weight 0 (a label that is missing).

    Returns:
        Values and weights (0 or 1) of the targets' shape.

    Raises:
        ValueError: for shapes that do not fit, or a `pos_weight` out of range.

    Example:
        >>> binary_cross_entropy(torch.zeros(2), torch.tensor([1, 0]), pos_weight=3.0).values
        tensor([2.0794, 0.6931])
    """
    logits, labels = binary_labels("binary_cross_entropy", logits, targets, ignore_index)
    factor = None if pos_weight is None else _pos_weight(pos_weight, logits)
    values = F.binary_cross_entropy_with_logits(logits, labels.value, pos_weight=factor, reduction="none")
    return PerExample(labels.refused(values), labels.weights(values.dtype))


def binary_focal(
    logits: Tensor, targets: Tensor, *, gamma: float = 2.0, alpha: float | None = 0.25, ignore_index: int = -100
) -> PerExample:
    """Focal loss of independent logits, `-alpha y (1 - p)^gamma log p - (1 - alpha) (1 - y) p^gamma log(1 - p)`.

    Args:
        logits: floating `[B, ...]`, or `[B, 1, ...]`.
        targets: `[B, ...]`, 0, 1 or in between, or `ignore_index`; anything else makes its value NaN.
        gamma: 0 or more.
        alpha: weight of the positive part, 0 to 1; None for no weights.
        ignore_index: target whose position has weight 0.

    Returns:
        Values and weights (0 or 1) of the targets' shape.

    Raises:
        ValueError: for shapes that do not fit, or an option out of range.

    Example:
        >>> binary_focal(torch.zeros(2), torch.tensor([1, 0]), alpha=None).values
        tensor([0.1733, 0.1733])

    References:
        Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5.
    """
    if not 0.0 <= gamma < float("inf"):
        raise ValueError(f"gamma must be 0 or more, got {gamma}")
    if alpha is not None and not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be between 0 and 1, or None for no weights; got {alpha}")
    logits, labels = binary_labels("binary_focal", logits, targets, ignore_index)
    log_yes, log_no = F.logsigmoid(logits), F.logsigmoid(-logits)
    # Powers through logarithms: the gradient stays finite for gamma < 1 where a probability rounds to 0.
    positive = -(gamma * log_no).exp() * log_yes * labels.value
    negative = -(gamma * log_yes).exp() * log_no * (1 - labels.value)
    values = positive + negative if alpha is None else alpha * positive + (1 - alpha) * negative
    return PerExample(labels.refused(values), labels.weights(values.dtype))


def _pos_weight(pos_weight: float | Sequence[float], logits: Tensor) -> Tensor:
    numbers = (pos_weight,) if isinstance(pos_weight, (int, float)) else tuple(pos_weight)
    if len(numbers) not in (1, logits.shape[-1]):
        raise ValueError(
            f"pos_weight has {len(numbers)} numbers, but the logits {list(logits.shape)} have {logits.shape[-1]} "
            "labels in their last dimension; give one for each, or one number"
        )
    if not all(0 < number < float("inf") for number in numbers):
        raise ValueError(f"pos_weight must be greater than 0 and finite, got {pos_weight}")
    return torch.tensor(numbers, dtype=logits.dtype, device=logits.device)
