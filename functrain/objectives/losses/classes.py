"""Losses of one class among several."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.foundation.numbers import MemberValue
from functrain.metrics.weighted_sums import PerExample, wide
from functrain.objectives.losses.labels import (
    Labels,
    are_shares,
    check_label_smoothing,
    class_labels,
    one_hot,
    per_class,
)


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    ignore_index: int = -100,
) -> PerExample:
    """Cross-entropy of class logits.

    With class weights the mean is torch's: the sum of weight times loss, divided by the sum of the weights of
    the targets' classes. The division is not done here, so that micro-batches add up.

    A target that is neither a class nor `ignore_index` makes its value NaN, on every device and
    compiled or not, so that the step refuses the update instead of reading memory out of range.

    Args:
        logits: floating `[B, C]` or `[B, C, ...]`.
        targets: int64 `[B]` or `[B, ...]`, classes 0 to C - 1, or `ignore_index`; or soft, floating, of the logits'
            shape: the share of each class, as `MixUp` and teachers give them. Shares that are all 0 have weight 0.
        label_smoothing: weight of the uniform distribution in the target, 0 to 1.
        class_weights: C numbers, 0 or more; greater than 0 with label smoothing.
        ignore_index: target whose position has weight 0.

    Returns:
        Values and weights (of the target's class; 1 without class weights; 0 if ignored) of the targets' shape.

    Raises:
        ValueError: for shapes that do not fit, or an option out of range.

    Example:
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1])).values
        tensor([0.6931])
        >>> cross_entropy(torch.zeros(2, 2), torch.tensor([1, 0]), class_weights=(1.0, 3.0)).weights
        tensor([3., 1.])

    References:
        Label smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """
    if label_smoothing != 0.0:
        check_label_smoothing(label_smoothing)
    if targets.dtype.is_floating_point and targets.shape == logits.shape and logits.ndim >= 2:
        return _of_shares(wide(logits), targets, label_smoothing, class_weights)
    logits, labels = class_labels("cross_entropy", logits, targets, ignore_index)
    logits = wide(logits)
    if label_smoothing != 0 and class_weights is not None and not all(weight > 0 for weight in class_weights):
        # torch gives such an example a loss (the smooth part) but no weight: not a mean of anything.
        raise ValueError(
            f"class_weights must be greater than 0 with label_smoothing, got {tuple(class_weights)}; leave a class "
            "out with ignore_index"
        )
    if isinstance(label_smoothing, MemberValue):
        return _smoothed(logits, labels, label_smoothing.tensor, class_weights)
    if class_weights is None or label_smoothing == 0:
        values = F.cross_entropy(logits, labels.value, reduction="none", label_smoothing=label_smoothing)
        return _weighted(values, labels, class_weights, logits)
    weight = per_class(class_weights, logits)
    values = F.cross_entropy(logits, labels.value, weight, reduction="none", label_smoothing=label_smoothing)
    return _weighted(values / weight[labels.value], labels, class_weights, logits)


def _smoothed(
    logits: Tensor, labels: Labels, label_smoothing: Tensor, class_weights: Sequence[float] | None
) -> PerExample:
    """Cross-entropy with a label smoothing that is a 0-d tensor."""
    rate = label_smoothing.to(logits.dtype)
    costs = -logits.log_softmax(1)
    own = F.cross_entropy(logits, labels.value, reduction="none")
    if class_weights is not None:
        weight = per_class(class_weights, logits)
        costs = costs * weight.view(-1, *[1] * (logits.ndim - 2)) / weight[labels.value].unsqueeze(1)
    # Without smoothing a class may have an infinite cost: a masked logit.
    values = (1 - rate) * own + torch.where(rate > 0, rate * costs.mean(1), 0.0)
    return _weighted(values, labels, class_weights, logits)


def _of_shares(
    logits: Tensor, shares: Tensor, label_smoothing: float, class_weights: Sequence[float] | None
) -> PerExample:
    """Cross-entropy against the share of each class, `[B, C, ...]`; shares that are all 0 do not count.

    Less than 1 in all is what mixing with an example without a label leaves.
    """
    shares = shares.to(logits.dtype)
    counted = (shares != 0).any(1)
    costs = -torch.where(counted.unsqueeze(1), logits, 0.0).log_softmax(1)
    rate = label_smoothing.tensor.to(logits.dtype) if isinstance(label_smoothing, MemberValue) else label_smoothing
    smooth = shares * (1 - rate) + rate / logits.shape[1] if label_smoothing else shares
    weights = counted.to(costs.dtype)
    if class_weights is not None:
        smooth = smooth * per_class(class_weights, logits).view(-1, *[1] * (logits.ndim - 2))
        total = smooth.sum(1)
        weights = torch.where(counted, total, 0.0)
        smooth = smooth / torch.where(total > 0, total, 1.0).unsqueeze(1)
    # A class without a share may have an infinite cost: a masked logit.
    values = torch.where(smooth > 0, smooth * torch.where(smooth > 0, costs, 0.0), 0.0).sum(1)
    valid = are_shares(shares)
    return PerExample(torch.where(valid, torch.where(counted, values, 0.0), float("nan")), weights)


def focal(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
    ignore_index: int = -100,
) -> PerExample:
    """Focal loss of class logits, `-(1 - p)^gamma log p` with p the probability of the target's class.

    Examples that are classified well count less. With `gamma=0` it is `cross_entropy`, weights included.

    Args:
        logits: floating `[B, C]` or `[B, C, ...]`, two classes or more.
        targets: int64 `[B]` or `[B, ...]`, classes 0 to C - 1, or `ignore_index`.
        gamma: 0 or more.
        class_weights: C numbers, 0 or more, the paper's alpha; the mean divides by their sum over the targets, as
            `cross_entropy` does.
        ignore_index: target whose position has weight 0.

    Returns:
        Values and weights of the targets' shape, as of `cross_entropy`.

    Raises:
        ValueError: for shapes that do not fit, or an option out of range.

    Example:
        >>> focal(torch.zeros(1, 2), torch.tensor([1])).values  # log(2) / 4
        tensor([0.1733])

    References:
        Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 4.
    """
    if not 0.0 <= gamma < float("inf"):
        raise ValueError(f"gamma must be 0 or more, got {gamma}")
    logits, labels = class_labels("focal", logits, targets, ignore_index)
    if logits.shape[1] < 2:
        raise ValueError("focal takes logits of two classes or more, got one; of one logit, take binary_focal")
    log_probabilities = wide(logits).log_softmax(1)
    own = one_hot(labels.value, logits.shape[1])
    log_own = torch.where(own, log_probabilities, 0.0).sum(1)
    # log(1 - p) from the other classes: no cancellation, and a finite gradient for gamma < 1 where p rounds to 1.
    log_others = log_probabilities.masked_fill(own, float("-inf")).logsumexp(1)
    return _weighted(-(gamma * log_others).exp() * log_own, labels, class_weights, log_probabilities)


def _weighted(values: Tensor, labels: Labels, class_weights: Sequence[float] | None, logits: Tensor) -> PerExample:
    weights = labels.weights(values.dtype)
    if class_weights is not None:
        weights = weights * per_class(class_weights, logits)[labels.value]
        weights = torch.where(labels.valid | ~labels.counted, weights, 1.0)  # a label out of range must show
    return PerExample(labels.refused(values), weights)
