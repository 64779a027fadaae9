"""What an evaluation found: numbers with their confidence, tables, figures, and what they are made of."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation.bootstrap import Interval, interval
from functrain.evaluation.panels import Panel
from functrain.foundation.errors import DataError


class Number(NamedTuple):
    """A metric.

    Attributes:
        name: as scikit-learn or the field calls it.
        value: NaN where it is not defined.
        interval: with a confidence of 95 %; None if there is none.
    """

    name: str
    value: float
    interval: Interval | None = None


class Table(NamedTuple):
    """Rows of texts and numbers.

    Attributes:
        name: in files.
        title: above it.
        header: of the columns.
        rows: as long as the header each.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: list[list[Any]]


class Report(NamedTuple):
    """The result of evaluating a state on the examples of a loader.

    Attributes:
        task: what the model was trained to do: "classification", "regression", ...
        examples: how many were counted.
        numbers: of all examples.
        tables: of classes, of thresholds.
        panels: the figures.
        scores: arrays with a row for each example, to compute other numbers from.
        predictions: a row for each example, to be read by people and other programs.
    """

    task: str
    examples: int
    numbers: tuple[Number, ...]
    tables: tuple[Table, ...]
    panels: tuple[Panel, ...]
    scores: dict[str, NDArray[Any]]
    predictions: Table | None = None


class Collector(Protocol):
    """Takes what a report needs from one batch after another."""

    def add(self, scores: Any, targets: Any) -> None:
        """Take a batch: what the loss compares with the targets, and these, on the CPU."""

    def report(self, tuned: float | None, labels: Sequence[str] | None) -> Report:
        """The report over all batches.

        Args:
            tuned: a threshold of probabilities that was chosen on other data.
            labels: names of the classes.
        """


def names_of(count: int, labels: Sequence[str] | None, what: str) -> list[str]:
    """The given names, or numbers.

    Raises:
        ValueError: for another number of names.
    """
    if labels is None:
        return [str(number) for number in range(count)]
    if len(labels) != count:
        raise ValueError(f"there are {count} {what}, but {len(labels)} labels: {', '.join(labels)}")
    return list(labels)


def refuse_nan(scores: Tensor) -> None:
    """Refuse scores that are not numbers: whatever is made of them means nothing.

    Raises:
        DataError: naming how many examples have some.
    """
    strange = scores.isnan().flatten(1).any(1) if scores.ndim > 1 else scores.isnan()
    if strange.any():
        raise DataError(
            f"{int(strange.sum())} of {len(scores)} examples have scores that are NaN, so there is no report. "
            "functrain hunt finds where the first one arose"
        )


def refuse_strangers(targets: Tensor, classes: int, ignored: int) -> None:
    """Refuse targets that are no class of the model.

    Raises:
        DataError: naming the first one.
    """
    strange = targets[(targets < 0) | (targets >= classes)]
    if len(strange):
        raise DataError(
            f"target {strange[0].item()} is no class of the model: targets must be 0 to {classes - 1}, or {ignored} "
            "(ignore_index) to be left out"
        )


def numbers_of(
    values: Mapping[str, Any],
    replicates: Mapping[str, NDArray[np.float64]],
    known: Mapping[str, Interval | None] | None = None,
) -> tuple[Number, ...]:
    """Each value with its `known` interval, or with that of its replicates."""
    known = known or {}
    return tuple(
        Number(name, float(value), known[name] if name in known else interval(replicates[name]))
        for name, value in values.items()
    )
