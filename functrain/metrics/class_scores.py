"""Formulas of class metrics: numbers of each class, and of all classes together.

They take sums of weights `[4, C, ...]` of each class against the rest: of hits, of predictions, of targets, and of all
examples. What comes behind the classes stays, such as the replicates of a bootstrap. A quotient 0 / 0 is 0, as
scikit-learn has it by default.
"""

import torch
from torch import Tensor


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient; 0 where the denominator is 0.

    Example:
        >>> quotient(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
        tensor([0.5000, 0.0000])
    """
    return torch.where(denominator != 0, numerator / torch.where(denominator != 0, denominator, 1.0), 0.0)


def precision(sums: Tensor) -> Tensor:
    """TP / (TP + FP)."""
    return quotient(sums[0], sums[1])


def recall(sums: Tensor) -> Tensor:
    """TP / (TP + FN)."""
    return quotient(sums[0], sums[2])


def specificity(sums: Tensor) -> Tensor:
    """TN / (TN + FP)."""
    hits, predicted, actual, every = sums
    return quotient(every - predicted - actual + hits, every - actual)


def dice(sums: Tensor) -> Tensor:
    """2 TP / (2 TP + FP + FN), which is F1."""
    return quotient(2 * sums[0], sums[1] + sums[2])


def iou(sums: Tensor) -> Tensor:
    """TP / (TP + FP + FN)."""
    return quotient(sums[0], sums[1] + sums[2] - sums[0])


def right_labels(sums: Tensor) -> Tensor:
    """(TP + TN) / all."""
    hits, predicted, actual, every = sums
    return quotient(every - predicted - actual + 2 * hits, every)


def accuracy(sums: Tensor) -> Tensor:
    """Of all classes: the share of right predictions, without the dimension of the classes."""
    return quotient(sums[0].sum(0), sums[3][0])


def balanced_accuracy(sums: Tensor) -> Tensor:
    """Of all classes: the mean recall of those that have targets."""
    return recall(sums).sum(0) / (sums[2] > 0).sum(0)


def matthews_corrcoef(sums: Tensor) -> Tensor:
    """Of all classes: Gorodkin's correlation; 0 where predictions or targets are of one class only."""
    hits, predicted, actual, every = sums[0], sums[1], sums[2], sums[3][0]
    covariance = hits.sum(0) * every - (actual * predicted).sum(0)
    of_predicted, of_actual = every**2 - predicted.square().sum(0), every**2 - actual.square().sum(0)
    return quotient(covariance, of_predicted.sqrt() * of_actual.sqrt())


def cohen_kappa(sums: Tensor) -> Tensor:
    """Of all classes: agreement beyond chance, of counts; 0 where chance agrees always."""
    hits, predicted, actual, every = sums[0], sums[1], sums[2], sums[3][0]
    chance = (actual * predicted).sum(0)
    return quotient(hits.sum(0) * every - chance, every**2 - chance)


def macro(values: Tensor, present: Tensor) -> Tensor:
    """The mean `[...]` of values `[C, ...]` over the classes that are present, bool `[C, ...]`."""
    return torch.where(present, values, 0.0).sum(0) / present.sum(0)
