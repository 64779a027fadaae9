"""Counts of right and wrong classes."""

import torch
from torch import Tensor

from functrain.metrics.ones import are_ones
from functrain.metrics.weighted_sums import PerExample, times_example_weight


def accuracy_sums(correct: Tensor, counted: Tensor, weight: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The weighted count of right predictions and the sum of the weights: two 0-d tensors, whose quotient is accuracy.

    Args:
        correct: bool `[B]` or `[B, ...]`, whether the prediction is right.
        counted: bool of the same shape, whether there is a label.
        weight: `[B]`, of the examples; None: each counts once.
        dtype: of the sums.

    Example:
        >>> right, everything = torch.tensor([True, False, True]), torch.ones(3, dtype=torch.bool)
        >>> accuracy_sums(right, everything, torch.tensor([2.0, 1.0, 0.0]), torch.float32)
        (tensor(2.), tensor(3.))
    """
    if weight is None or (are_ones(weight) and len(weight) == len(counted)):
        # the same numbers in fewer operations, each of which a small network's eager step notices
        return (correct & counted).sum(dtype=dtype), counted.sum(dtype=dtype)
    return times_example_weight(PerExample(correct.to(dtype), counted.to(dtype)), weight).sums()


def confusion_matrix(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """How often each class was predicted as each.

    Args:
        predicted: int64 `[N]`, classes 0 to `classes` - 1.
        truth: int64 `[N]`, likewise.
        classes: how many there are.

    Returns:
        float64 `[classes, classes]`: a row for each true class, a column for each predicted one.

    Example:
        >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
        tensor([[1., 1.],
                [0., 1.]], dtype=torch.float64)
    """
    return torch.bincount(truth * classes + predicted, minlength=classes * classes).view(classes, classes).double()
