"""Losses of a student against what its teacher says."""

import torch
from torch import Tensor

from functrain.metrics.weighted_sums import PerExample, wide


def distillation(logits: Tensor, taught: Tensor, *, temperature: float = 4.0) -> PerExample:
    """Kullback-Leibler divergence of a student's probabilities from its teacher's, both softened by a temperature.

    `T^2 sum_c p_c (log p_c - log q_c)` with p the softmax of the teacher's logits over T and q that of the student's.
    The factor keeps the gradient's size when the temperature changes, so that a weight beside the loss of the labels
    need not change with it.

    A class whose logit the teacher masks with minus infinity does not count.

    Args:
        logits: of the student, floating `[B, C]` or `[B, C, ...]`.
        taught: of the teacher, floating, of the same shape. Give them without a gradient, as data are.
        temperature: greater than 0. A higher one shows more of what the teacher knows about the other classes.

    Returns:
        Values `[B]` or `[B, ...]`, weights one.

    Raises:
        ValueError: for shapes that do not fit, or a temperature out of range.

    Example:
        >>> distillation(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), temperature=1.0).values
        tensor([0.1109])

    References:
        Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    check_temperature(temperature)
    if logits.ndim < 2 or logits.shape != taught.shape:
        raise ValueError(
            "distillation takes the logits of a student and of its teacher in one shape, [B, C] or [B, C, ...]; got "
            f"{list(logits.shape)} and {list(taught.shape)}"
        )
    own = (wide(logits) / temperature).log_softmax(1)
    theirs = (taught.to(own.dtype) / temperature).log_softmax(1)
    probabilities = theirs.exp()
    # A probability of 0 times an infinite difference of logarithms is NaN, and its gradient too.
    counted = probabilities != 0
    differences = torch.where(counted, theirs, 0.0) - torch.where(counted, own, 0.0)
    values = temperature * temperature * (probabilities * differences).sum(1)
    return PerExample(values, torch.ones_like(values))


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not greater than 0 and finite."""
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature must be greater than 0 and finite, got {temperature}")
