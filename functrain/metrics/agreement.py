"""Metrics of the confusion matrix: agreement of predicted and true classes, and the matrix."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from functrain.metrics import class_scores
from functrain.metrics.accumulating import Accumulator, Metric
from functrain.metrics.class_scores import quotient
from functrain.metrics.counts import Confusion, task_and_sums
from functrain.metrics.examples import Labels, Task


def balanced_accuracy(
    *,
    adjusted: bool = False,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """The mean recall of the classes that have targets; of a binary task, of both classes.

    Args:
        adjusted: rescale it, so that chance is 0.
        task: "binary" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits; else probabilities.
        threshold: the probability above which a label is predicted (binary).
        num_classes: needed where predictions are class numbers.

    Example:
        >>> balanced_accuracy()(torch.eye(3), torch.tensor([0, 1, 1]))
        tensor(0.7500, dtype=torch.float64)
    """
    statistic = Confusion(Labels(task, from_logits, threshold, num_classes))
    return Metric("balanced_accuracy", statistic, _Balanced(adjusted))


def matthews_corrcoef(
    *,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """Matthews' correlation coefficient of predicted and true classes; 0 where one of the two has one class only.

    Arguments as of `balanced_accuracy`.

    Example:
        >>> matthews_corrcoef()(torch.tensor([1.0, -1.0, 1.0]), torch.tensor([1, 0, 0]))
        tensor(0.5000, dtype=torch.float64)

    References:
        Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient", equation 8.
    """
    return Metric("matthews_corrcoef", Confusion(Labels(task, from_logits, threshold, num_classes)), _matthews)


def cohen_kappa(
    weights: Literal["linear", "quadratic"] | None = None,
    *,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """Cohen's kappa, the agreement of predicted and true classes beyond chance; NaN where chance agrees always.

    Args:
        weights: how much a pair of classes disagrees: by the difference of their numbers ("linear"), or its square
            ("quadratic"); default: all alike.
        task, from_logits, threshold, num_classes: as of `balanced_accuracy`.

    Example:
        >>> cohen_kappa()(torch.tensor([1.0, -1.0, 1.0]), torch.tensor([1, 0, 0]))
        tensor(0.4000, dtype=torch.float64)
    """
    if weights not in (None, "linear", "quadratic"):
        raise ValueError(f"weights must be 'linear', 'quadratic' or None; got {weights!r}")
    return Metric("cohen_kappa", Confusion(Labels(task, from_logits, threshold, num_classes)), _Kappa(weights))


def confusion_matrix(
    normalize: Literal["true", "pred", "all"] | None = None,
    *,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """How often each class was predicted as each: a row for each true class, a column for each predicted one.

    Args:
        normalize: divide by the sums of the rows ("true"), of the columns ("pred"), or by the sum of all.
        task: "binary", "multilabel" (a 2 x 2 matrix for each label) or "multiclass"; default: as the shapes say.
        from_logits, threshold, num_classes: as of `balanced_accuracy`.

    Example:
        >>> confusion_matrix()(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 0, 1]))
        tensor([[1., 1.],
                [0., 1.]], dtype=torch.float64)
    """
    if normalize not in (None, "true", "pred", "all"):
        raise ValueError(f"normalize must be 'true', 'pred', 'all' or None; got {normalize!r}")
    statistic = Confusion(Labels(task, from_logits, threshold, num_classes))
    return Metric("confusion_matrix", statistic, _Normalized(normalize))


@dataclass(frozen=True)
class _Balanced:
    adjusted: bool

    def __call__(self, counts: Accumulator) -> Tensor:
        sums = _sums(_one_matrix("balanced_accuracy", counts))
        score = class_scores.balanced_accuracy(sums)
        if not self.adjusted:
            return score
        chance = 1.0 / (sums[2] > 0).sum()
        return (score - chance) / (1.0 - chance)


def _matthews(counts: Accumulator) -> Tensor:
    task, matrix = task_and_sums(counts)
    sums = _sums(matrix.sum(0) if task == "multilabel" else matrix)
    return torch.where(sums[3, 0] > 0, class_scores.matthews_corrcoef(sums), float("nan"))


def _sums(matrix: Tensor) -> Tensor:
    """What `class_scores` takes, of both classes of a binary task."""
    actual = matrix.sum(1)
    return torch.stack([matrix.diagonal(), matrix.sum(0), actual, actual.sum().expand_as(actual)])


@dataclass(frozen=True)
class _Kappa:
    weights: str | None

    def __call__(self, counts: Accumulator) -> Tensor:
        matrix = _one_matrix("cohen_kappa", counts)
        number = torch.arange(len(matrix), dtype=matrix.dtype, device=matrix.device)
        distance = (number[:, None] - number).abs()
        if self.weights is None:
            disagree = (distance != 0).to(matrix.dtype)
        else:
            disagree = distance if self.weights == "linear" else distance.square()
        expected = matrix.sum(1)[:, None] * matrix.sum(0) / matrix.sum()
        return 1 - (disagree * matrix).sum() / (disagree * expected).sum()


@dataclass(frozen=True)
class _Normalized:
    normalize: str | None

    def __call__(self, counts: Accumulator) -> Tensor:
        _, matrix = task_and_sums(counts)
        if self.normalize is None:
            return matrix
        over = {"true": (-1,), "pred": (-2,), "all": (-2, -1)}[self.normalize]
        return quotient(matrix, matrix.sum(over, keepdim=True).expand_as(matrix))


def _one_matrix(name: str, counts: Accumulator) -> Tensor:
    task, matrix = task_and_sums(counts)
    if task == "multilabel":
        raise ValueError(f"{name} is for classes, of which an example has one; these are several labels an example")
    return matrix
