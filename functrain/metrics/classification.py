"""Metrics of classes: accuracy, precision, recall, F1, Dice, IoU, agreement, the confusion matrix.

With TP, FP, FN, TN the weights of one class against the rest. A quotient 0 / 0 is 0, as scikit-learn has it by default.
A class that is neither predicted nor a target is left out of a mean over classes, and has no number of its own (NaN).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from functrain.metrics.accumulating import Accumulator, Metric, Values
from functrain.metrics.counts import Confusion, OneVersusRest, Right, task_and_sums
from functrain.metrics.examples import Labels

Average = Literal["macro", "micro", "weighted", "none"]
Task = Literal["binary", "multilabel", "multiclass"]
AVERAGES = ("macro", "micro", "weighted", "none")


def accuracy(
    average: Average = "micro",
    *,
    top_k: int = 1,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """The share of right predictions.

    Args:
        average: "micro" counts examples (several labels of one: each of them). "macro" is the mean over classes of
            their recall, "weighted" weighs it by the targets, "none" gives one for each. Of several labels they are
            means of each label's share of right predictions.
        top_k: a prediction is right if the class is among so many with the largest scores.
        task: "binary", "multilabel" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits; else probabilities.
        threshold: the probability above which a label is predicted (binary, multilabel).
        num_classes: needed where predictions are class numbers.

    Example:
        >>> accuracy()(torch.eye(3), torch.tensor([0, 1, 1]))
        tensor(0.6667, dtype=torch.float64)
    """
    _check(average, top_k)
    labels = Labels(task, from_logits, threshold, num_classes)
    if average == "micro":
        return Metric("accuracy", Right(labels, top_k), _share)
    return Metric("accuracy", OneVersusRest(labels, top_k), _Averaged(_accuracy, average))


def precision(
    average: Average = "macro",
    *,
    top_k: int = 1,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """TP / (TP + FP), the share of predictions of a class that are right.

    Args:
        average: over classes: "macro" (their mean), "micro" (of their sums), "weighted" (by the targets of each), or
            "none": a number for each class, and their macro mean. A binary task has the positive class alone.
        top_k: so many classes with the largest scores are predicted.
        task: "binary", "multilabel" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits; else probabilities.
        threshold: the probability above which a label is predicted (binary, multilabel).
        num_classes: needed where predictions are class numbers.

    Example:
        >>> precision()(torch.eye(3), torch.tensor([0, 1, 1]))
        tensor(0.6667, dtype=torch.float64)
    """
    return _of_classes("precision", _precision, average, top_k, Labels(task, from_logits, threshold, num_classes))


def recall(
    average: Average = "macro",
    *,
    top_k: int = 1,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """TP / (TP + FN), the share of a class's examples that are found (sensitivity). Arguments as of `precision`.

    Example:
        >>> recall()(torch.eye(3), torch.tensor([0, 1, 1]))
        tensor(0.5000, dtype=torch.float64)
    """
    return _of_classes("recall", _recall, average, top_k, Labels(task, from_logits, threshold, num_classes))


def specificity(
    average: Average = "macro",
    *,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """TN / (TN + FP), the share of the others that are not taken for the class. Arguments as of `precision`.

    Example:
        >>> specificity()(torch.tensor([2.0, 1.0, -1.0]), torch.tensor([1, 0, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    return _of_classes("specificity", _specificity, average, 1, Labels(task, from_logits, threshold, num_classes))


def f1(
    average: Average = "macro",
    *,
    top_k: int = 1,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall. Arguments as of `precision`.

    Example:
        >>> f1("none")(torch.eye(3), torch.tensor([0, 1, 1]))["class"]
        tensor([1.0000, 0.6667, 0.0000], dtype=torch.float64)
    """
    return _of_classes("f1", _dice, average, top_k, Labels(task, from_logits, threshold, num_classes))


def dice(
    average: Average = "macro",
    *,
    include_background: bool = True,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """2 TP / (2 TP + FP + FN) of the pixels of all images together.

    Args:
        average: over classes, see `precision`.
        include_background: count class 0 among the classes.
        task: "binary", "multilabel" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits; else probabilities.
        threshold: the probability above which a pixel is predicted (binary, multilabel).
        num_classes: needed where predictions are class numbers.

    Example:
        >>> masks = torch.tensor([[[1, 1], [0, 0]]])
        >>> dice()(torch.tensor([[[9.0, -9.0], [-9.0, -9.0]]]), masks)
        tensor(0.6667, dtype=torch.float64)
    """
    labels = Labels(task, from_logits, threshold, num_classes)
    return _of_classes("dice", _dice, average, 1, labels, include_background)


def iou(
    average: Average = "macro",
    *,
    include_background: bool = True,
    task: Task | None = None,
    from_logits: bool = True,
    threshold: float = 0.5,
    num_classes: int | None = None,
) -> Metric:
    """TP / (TP + FP + FN), intersection over union of all images together (Jaccard index). Arguments as of `dice`.

    Example:
        >>> masks = torch.tensor([[[1, 1], [0, 0]]])
        >>> iou()(torch.tensor([[[9.0, -9.0], [-9.0, -9.0]]]), masks)
        tensor(0.5000, dtype=torch.float64)
    """
    labels = Labels(task, from_logits, threshold, num_classes)
    return _of_classes("iou", _iou, average, 1, labels, include_background)


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


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient; 0 where the denominator is 0.

    Example:
        >>> quotient(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
        tensor([0.5000, 0.0000])
    """
    return torch.where(denominator != 0, numerator / torch.where(denominator != 0, denominator, 1.0), 0.0)


def averaged(values: Tensor, average: str, present: Tensor, support: Tensor) -> Values:
    """Numbers of classes, averaged.

    Args:
        values: `[C]`.
        average: "macro", "weighted" or "none".
        present: bool `[C]`, the classes that a mean is taken over.
        support: `[C]`, weights of "weighted".

    Example:
        >>> values, present = torch.tensor([1.0, 0.0, 0.5]), torch.tensor([True, False, True])
        >>> averaged(values, "macro", present, torch.ones(3)), averaged(values, "none", present, torch.ones(3))["class"]
        (tensor(0.7500), tensor([1.0000,    nan, 0.5000]))
    """
    macro = torch.where(present, values, 0.0).sum() / present.sum()
    if average == "weighted":
        weighted = quotient((torch.where(present, values, 0.0) * support).sum(), support.sum())
        return torch.where(present.any(), weighted, float("nan"))
    return macro if average == "macro" else {"": macro, "class": torch.where(present, values, float("nan"))}


@dataclass(frozen=True)
class _Averaged:
    """The value of one-versus-rest counts, by a formula of `[4, C]` or `[4]`."""

    formula: Callable[[Tensor, bool], Tensor]
    average: str
    include_background: bool = True

    def __call__(self, counts: Accumulator) -> Values:
        task, sums = task_and_sums(counts)
        several = task == "multilabel"
        if task == "binary":
            value = self.formula(sums[:, 0], True)
            return torch.where(sums[3, 0] > 0, value, float("nan"))
        if not self.include_background:
            sums = sums[:, 1:]
        if self.average == "micro":
            value = self.formula(sums.sum(1), several)
            return torch.where(sums[3].sum() > 0, value, float("nan"))
        present = sums[3] > 0 if several else sums[1] + sums[2] > 0
        return averaged(self.formula(sums, several), self.average, present, sums[2])


def _precision(sums: Tensor, _: bool) -> Tensor:
    return quotient(sums[0], sums[1])


def _recall(sums: Tensor, _: bool) -> Tensor:
    return quotient(sums[0], sums[2])


def _dice(sums: Tensor, _: bool) -> Tensor:
    return quotient(2 * sums[0], sums[1] + sums[2])


def _iou(sums: Tensor, _: bool) -> Tensor:
    return quotient(sums[0], sums[1] + sums[2] - sums[0])


def _specificity(sums: Tensor, _: bool) -> Tensor:
    hits, predicted, actual, every = sums
    return quotient(every - predicted - actual + hits, every - actual)


def _accuracy(sums: Tensor, labels: bool) -> Tensor:
    """Of several labels the share of right predictions; of classes their recall."""
    hits, predicted, actual, every = sums
    return quotient(every - predicted - actual + 2 * hits, every) if labels else quotient(hits, actual)


def _share(counts: Accumulator) -> Tensor:
    _, (right, every) = task_and_sums(counts)
    return right / every


@dataclass(frozen=True)
class _Balanced:
    adjusted: bool

    def __call__(self, counts: Accumulator) -> Tensor:
        matrix = _one_matrix("balanced_accuracy", counts)
        support = matrix.sum(1)
        present = support > 0
        score = quotient(matrix.diagonal(), support).sum() / present.sum()
        if not self.adjusted:
            return score
        chance = 1.0 / present.sum()
        return (score - chance) / (1.0 - chance)


def _matthews(counts: Accumulator) -> Tensor:
    task, matrix = task_and_sums(counts)
    matrix = matrix.sum(0) if task == "multilabel" else matrix
    actual, predicted, every = matrix.sum(1), matrix.sum(0), matrix.sum()
    covariance = matrix.diagonal().sum() * every - (actual * predicted).sum()
    of_predicted, of_actual = every**2 - predicted.square().sum(), every**2 - actual.square().sum()
    value = quotient(covariance, of_predicted.sqrt() * of_actual.sqrt())
    return torch.where(every > 0, value, float("nan"))


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


def _of_classes(
    name: str,
    formula: Callable[[Tensor, bool], Tensor],
    average: str,
    top_k: int,
    labels: Labels,
    include_background: bool = True,
) -> Metric:
    _check(average, top_k)
    return Metric(name, OneVersusRest(labels, top_k), _Averaged(formula, average, include_background))


def _check(average: Any, top_k: Any) -> None:
    if average not in AVERAGES:
        raise ValueError(f"average must be one of {', '.join(AVERAGES)}; got {average!r}")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ValueError(f"top_k must be a whole number, 1 or more; got {top_k!r}")
