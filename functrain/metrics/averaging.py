"""Means over classes: macro, micro, weighted, or a number for each class.

A class that is neither predicted nor a target is left out of a mean over classes, and has no number of its own (NaN).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from functrain.metrics.accumulating import Accumulator, Metric, Values
from functrain.metrics.class_scores import macro, quotient
from functrain.metrics.counts import OneVersusRest, task_and_sums
from functrain.metrics.examples import Labels

Average = Literal["macro", "micro", "weighted", "none"]
AVERAGES = ("macro", "micro", "weighted", "none")
Formula = Callable[[Tensor], Tensor]


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
    if average == "weighted":
        weighted = quotient((torch.where(present, values, 0.0) * support).sum(), support.sum())
        return torch.where(present.any(), weighted, float("nan"))
    mean = macro(values, present)
    return mean if average == "macro" else {"": mean, "class": torch.where(present, values, float("nan"))}


@dataclass(frozen=True)
class Averaged:
    """The value of one-versus-rest counts.

    Attributes:
        formula: of sums `[4, C]` or `[4]`, see `functrain.metrics.class_scores`.
        average: one of `AVERAGES`.
        include_background: count class 0 among the classes.
        of_labels: the formula for several labels of an example, and for a binary task; None: the same.
    """

    formula: Formula
    average: str
    include_background: bool = True
    of_labels: Formula | None = None

    def __call__(self, counts: Accumulator) -> Values:
        """The value."""
        task, sums = task_and_sums(counts)
        several = task == "multilabel"
        formula = self.formula if task == "multiclass" or self.of_labels is None else self.of_labels
        if task == "binary":
            return torch.where(sums[3, 0] > 0, formula(sums[:, 0]), float("nan"))
        if not self.include_background:
            sums = sums[:, 1:]
        if self.average == "micro":
            return torch.where(sums[3].sum() > 0, formula(sums.sum(1)), float("nan"))
        present = sums[3] > 0 if several else sums[1] + sums[2] > 0
        return averaged(formula(sums), self.average, present, sums[2])


def of_classes(
    name: str, formula: Formula, average: str, top_k: int, labels: Labels, include_background: bool = True
) -> Metric:
    """A metric of one-versus-rest counts.

    Raises:
        ValueError: for an average or `top_k` that does not exist.
    """
    check(average, top_k)
    return Metric(name, OneVersusRest(labels, top_k), Averaged(formula, average, include_background))


def check(average: Any, top_k: Any) -> None:
    """Refuse what does not exist.

    Raises:
        ValueError: likewise.
    """
    if average not in AVERAGES:
        raise ValueError(f"average must be one of {', '.join(AVERAGES)}; got {average!r}")
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ValueError(f"top_k must be a whole number, 1 or more; got {top_k!r}")
