"""What an evaluation found: numbers with their confidence, tables, figures, and what they are made of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation.bootstrap import Interval, interval
from functrain.evaluation.kept_rows import BatchRows, KeptRows
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
    rows: Sequence[Sequence[Any]]


class RowsInParts(Sequence[Sequence[Any]]):
    """Rows that are made when they are looked at, a part at a time. They are read best in their order.

    Args:
        count: how many there are.
        parts: gives them from the first one on, in lists.

    Example:
        >>> rows = RowsInParts(3, lambda: iter([[[0, "a"], [1, "b"]], [[2, "c"]]]))
        >>> len(rows), rows[1], rows[-1], [number for number, _ in rows]
        (3, [1, 'b'], [2, 'c'], [0, 1, 2])
    """

    def __init__(self, count: int, parts: Callable[[], Iterator[Sequence[Sequence[Any]]]]) -> None:
        self._count, self._parts = count, parts

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return chain.from_iterable(self._parts())

    @overload
    def __getitem__(self, index: int) -> Sequence[Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sequence[Any]]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        number = range(self._count)[index]
        return next(islice(self, number, None))


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
        threshold: of probabilities, chosen on the tuning data of a yes-or-no classifier; None: there were none.
    """

    task: str
    examples: int
    numbers: tuple[Number, ...]
    tables: tuple[Table, ...]
    panels: tuple[Panel, ...]
    scores: dict[str, NDArray[Any]]
    predictions: Table | None = None
    threshold: float | None = None


class Collector(ABC):
    """Makes a report of one batch after another.

    Args:
        ignore_index: a label that does not count.
        rows: where rows are kept; None: in a temporary folder.
        known: names of the classes that the data set knows. They are used if there are as many as the model has.

    Attributes:
        rows: likewise.
    """

    def __init__(self, ignore_index: int = -100, rows: KeptRows | None = None, known: Sequence[str] = ()) -> None:
        self._ignore, self._known = ignore_index, known
        self.rows = KeptRows() if rows is None else rows

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Take a batch: what the loss compares with the targets, and these, on the CPU."""
        self.rows.append(self.of_batch(scores, targets))

    @abstractmethod
    def of_batch(self, scores: Tensor, targets: Tensor) -> BatchRows:
        """What is kept of a batch.

        Raises:
            DataError: if scores and targets do not fit.
        """

    @abstractmethod
    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:
        """The report over all batches.

        Args:
            tuned: a threshold of probabilities that was chosen on other data.
            labels: names of the classes; None: those that are known, or numbers.

        Raises:
            DataError: if there is nothing to report on.
        """


def names_of(count: int, labels: Sequence[str] | None, what: str, known: Sequence[str] = ()) -> list[str]:
    """The given names, the known ones if there are as many, or numbers.

    Raises:
        ValueError: for another number of names.
    """
    if labels is None and len(known) == count:
        return list(known)
    if labels is None:
        return [str(number) for number in range(count)]
    if len(labels) != count:
        raise ValueError(f"there are {count} {what}, but {len(labels)} labels: {', '.join(labels)}")
    return list(labels)


class NotANumber:
    """Counts examples with scores that are not numbers: whatever is made of them means nothing."""

    def __init__(self) -> None:
        self._strange, self._examples = 0, 0

    def look(self, scores: NDArray[Any]) -> None:
        """At the next examples, `[n, K]`."""
        self._strange += int(np.isnan(scores).any(1).sum())
        self._examples += len(scores)

    def refuse(self) -> None:
        """Refuse them, if there are some.

        Raises:
            DataError: naming how many examples have some.
        """
        if self._strange:
            raise DataError(
                f"{self._strange} of {self._examples} examples have scores that are NaN, so there is no report. "
                "functrain hunt finds where the first one arose"
            )


def refuse_strangers(targets: NDArray[Any], classes: int, ignored: int) -> None:
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
