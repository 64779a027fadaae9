"""What class metrics count: right predictions, one class against the rest, a confusion matrix.

Sums of weights are float64, so counts of examples are exact integers, whatever the order of summation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.torch_internals import is_eager
from functrain.metrics.accumulating import Accumulator, Statistic
from functrain.metrics.examples import TASKS, Examples, Labels
from functrain.metrics.labelled import OfLabels


def task_and_sums(accumulator: Accumulator) -> tuple[str, Tensor]:
    """Which task an accumulator is of, and its sums of weights, which it has under the task's name.

    Example:
        >>> task_and_sums(Right(Labels()).of(torch.eye(2), torch.tensor([0, 0]), None))
        ('multiclass', tensor([1., 2.], dtype=torch.float64))
    """
    return next((task, accumulator[task]) for task in TASKS if task in accumulator)


def _accumulator(found: Examples, sums: Tensor) -> Accumulator:
    return {found.task: sums, "refused": found.refused}


@dataclass(frozen=True)
class Right(OfLabels):
    """`[2]`: the weight of right predictions, and of all.

    Attributes:
        labels: how predictions are read.
        top_k: a prediction is right if the class is among so many with the largest scores.
    """

    labels: Labels
    top_k: int = 1

    def of_examples(self, found: Examples) -> Accumulator:
        """Of what was read of a batch."""
        right = is_right(self.labels, found, self.top_k)
        return _accumulator(found, torch.stack([(found.weight * right).sum(), found.weight.sum()]))

    def made_of(self, other: Statistic) -> Callable[[Any], Accumulator] | None:
        """Of the confusion matrix."""
        return _right_of if other == Confusion(self.labels) and self.top_k == 1 else None


@dataclass(frozen=True)
class OneVersusRest(OfLabels):
    """`[4, C]`, for each class (or label): the weight of hits, of predictions, of targets, and of all examples.

    Attributes:
        labels: how predictions are read.
        top_k: so many classes with the largest scores are predicted.
    """

    labels: Labels
    top_k: int = 1

    def of_examples(self, found: Examples) -> Accumulator:
        """Of what was read of a batch."""
        if found.task != "multiclass":
            sums = _of_labels(self.labels.positive(found.scores), found.targets, found.weight)
        elif self.top_k > 1:
            predicted = top_classes(found.scores, self.top_k)
            truth = found.targets[:, None] == torch.arange(found.scores.shape[1], device=found.targets.device)
            sums = _of_labels(predicted, truth, found.weight[:, None].expand_as(truth))
        else:
            sums = self._of_classes(found)
        return _accumulator(found, sums)

    def made_of(self, other: Statistic) -> Callable[[Any], Accumulator] | None:
        """Of the confusion matrix."""
        return _rest_of if other == Confusion(self.labels) and self.top_k == 1 else None

    def _of_classes(self, found: Examples) -> Tensor:
        predicted, classes = found.predicted, classes_of(self.labels, found)
        hits = found.weight * (predicted == found.targets)
        return torch.stack(
            [
                sums_by_class(found.targets, hits, classes),
                sums_by_class(predicted, found.weight, classes),
                sums_by_class(found.targets, found.weight, classes),
                found.weight.sum().expand(classes),
            ]
        )


@dataclass(frozen=True)
class Confusion(OfLabels):
    """`[C, C]`, a row for each true class, a column for each predicted one; `[L, 2, 2]` of several labels.

    Attributes:
        labels: how predictions are read.
    """

    labels: Labels

    def of_examples(self, found: Examples) -> Accumulator:
        """Of what was read of a batch."""
        if found.task == "multiclass":
            classes = classes_of(self.labels, found)
            cells = found.targets * classes + found.predicted
            sums = sums_by_class(cells, found.weight, classes * classes).view(classes, classes)
        else:
            both, predicted, actual, every = _of_labels(
                self.labels.positive(found.scores), found.targets, found.weight
            ).unbind()
            cells = torch.stack([every - predicted - actual + both, predicted - both, actual - both, both], -1)
            sums = cells.view(-1, 2, 2)
            sums = sums[0] if found.task == "binary" else sums
        return _accumulator(found, sums)


def _right_of(confusion: Accumulator) -> Accumulator:
    """The accumulator of `Right` of that of `Confusion`."""
    task, cells = task_and_sums(confusion)
    sums = torch.stack([cells.diagonal(dim1=-2, dim2=-1).sum(), cells.sum()])
    return {task: sums, "refused": confusion["refused"]}


def _rest_of(confusion: Accumulator) -> Accumulator:
    """The accumulator of `OneVersusRest` of that of `Confusion`."""
    task, cells = task_and_sums(confusion)
    if task == "multiclass":
        hits, predicted, actual = cells.diagonal(), cells.sum(0), cells.sum(1)
        every = actual.sum().expand_as(hits)
    else:
        cells = cells.view(-1, 2, 2)
        hits, predicted, actual, every = cells[:, 1, 1], cells[:, :, 1].sum(1), cells[:, 1].sum(1), cells.sum((1, 2))
    return {task: torch.stack([hits, predicted, actual, every]), "refused": confusion["refused"]}


def is_right(labels: Labels, found: Examples, top_k: int = 1) -> Tensor:
    """Which predictions are right, of the targets' shape."""
    if found.task != "multiclass":
        return labels.positive(found.scores) == found.targets
    if top_k == 1:
        return found.predicted == found.targets
    return top_classes(found.scores, top_k).gather(1, found.targets[:, None]).squeeze(1)


def top_classes(scores: Tensor, top_k: int) -> Tensor:
    """bool `[N, C]`: the `top_k` classes with the largest scores; of equal ones, those that come first.

    Example:
        >>> top_classes(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), 2)
        tensor([[False,  True,  True, False]])
    """
    if scores.ndim == 1:
        raise ValueError("top_k needs the scores of all classes; the predictions are class numbers")
    if not 1 <= top_k <= scores.shape[1]:
        raise ValueError(f"top_k must be 1 to {scores.shape[1]}, the number of classes; got {top_k}")
    ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return ranks < top_k


def classes_of(labels: Labels, found: Examples) -> int:
    """How many classes a multiclass task has."""
    if found.scores.ndim == 2:
        return found.scores.shape[1]
    assert labels.num_classes is not None  # else the numbers were not read
    return labels.num_classes


def sums_by_class(classes: Tensor, weight: Tensor, count: int) -> Tensor:
    """float64 `[count]`: the weight of each class.

    Within a graph or a transform by comparison, which is fused and has one order of summation.

    Example:
        >>> sums_by_class(torch.tensor([0, 2, 2]), torch.tensor([1.0, 0.5, 1.0]).double(), 3)
        tensor([1.0000, 0.0000, 1.5000], dtype=torch.float64)
    """
    if is_eager() or count > _COMPARED:
        return torch.zeros(count, dtype=torch.float64, device=weight.device).index_add(0, classes, weight)
    numbers = torch.arange(count, device=classes.device)
    return torch.where(classes[:, None] == numbers, weight[:, None], 0.0).sum(0)


_COMPARED = 1024  # classes, at most: the work grows with them


def _of_labels(predicted: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    parts = (predicted & truth, predicted, truth)
    return torch.stack([*((weight * part).sum(0) for part in parts), weight.sum(0)])
