"""Rows of a table as the inputs and targets of a model, fitted on the training rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from functrain.data.columns import Cell, column_pieces
from functrain.data.preprocessing import Preprocessor
from functrain.data.table_columns import (
    MISSING,
    Categories,
    Column,
    Numbers,
    Ordered,
    are_numbers,
    column_from_json,
    column_to_json,
    in_order,
    numbers,
    text_of,
)
from functrain.foundation.errors import DataError

Missing = Literal["mean", "median", "refuse"]
TargetKind = Literal["classes", "number"]


class Target(NamedTuple):
    """The column that is predicted.

    Attributes:
        name: of the column.
        classes: their names in their order; None: it is a number.
        mean, std: of a number in the training rows, if it is standardised; else 0 and 1.
    """

    name: str
    classes: tuple[str, ...] | None = None
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class TablePreprocessor(Preprocessor):
    """Turns rows of a table into features: numbers standardised, categories one-hot or in their order.

    Attributes:
        columns: those that are used, fitted.
        target: what is predicted.
        missing: cells that count as missing.
        delimiter: between the cells of a CSV file.

    Example:
        >>> table = {"age": ["20", "40", ""], "town": ["Bonn", "Rome", "Rome"], "sick": ["no", "yes", "no"]}
        >>> fitted = TablePreprocessor.fit(table, target="sick")
        >>> fitted.features
        ['age', 'age is missing', 'town=Bonn', 'town=Rome']
        >>> fitted({"town": ["Rome"], "age": ["30"]})
        tensor([[0., 0., 0., 1.]])
        >>> fitted.targets(table).tolist(), TablePreprocessor.from_json(fitted.to_json()) == fitted
        ([0, 1, 0], True)
    """

    kind: ClassVar[str] = "table"

    columns: tuple[Column, ...]
    target: Target
    missing: tuple[str, ...] = MISSING
    delimiter: str = ","

    @classmethod
    def fit(
        cls,
        table: Mapping[str, Sequence[Cell]],
        *,
        target: str,
        target_is: TargetKind | None = None,
        standardise_target: bool = False,
        ignore: Sequence[str] = (),
        categorical: Sequence[str] = (),
        ordinal: Mapping[str, Sequence[Any]] | None = None,
        missing: Missing = "mean",
        missing_values: Sequence[str] = MISSING,
        most_categories: int = 100,
        delimiter: str = ",",
    ) -> Self:
        """Measure the training rows. Arguments as of `functrain.data.table`.

        Args:
            table: the training rows, by column.

        Raises:
            DataError: if a column cannot be used as it is.
            ValueError: for an argument that does not fit the table.
        """
        marks = tuple(missing_values)
        _check_arguments(table, target, ignore, categorical, ordinal or {}, missing)
        columns: list[Column] = []
        for name, cells in table.items():
            if name == target or name in ignore:
                continue
            if name in (ordinal or {}):
                columns.append(Ordered.fit(name, cells, marks, missing, (ordinal or {})[name]))
            elif name not in categorical and are_numbers(cells, marks):
                columns.append(Numbers.fit(name, cells, marks, missing))
            else:
                columns.append(Categories.fit(name, cells, marks, most_categories))
        if not columns:
            raise ValueError(f"no column is left to predict {target!r} from: all others are ignored")
        fitted = _fit_target(target, table[target], marks, target_is, standardise_target)
        return cls(tuple(columns), fitted, marks, delimiter)

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the classes in their order; none of a target that is a number."""
        return self.target.classes or ()

    @property
    def features(self) -> list[str]:
        """The names of the model's inputs, in their order."""
        return [feature for column in self.columns for feature in column.features]

    def __call__(self, table: Mapping[str, Sequence[Cell]], first: int = 0) -> Tensor:
        """The inputs of a model.

        Args:
            table: rows, by column; further columns do not matter.
            first: number of the first row, for messages.

        Returns:
            float32 `[N, F]`.

        Raises:
            DataError: if a column is not there, or a value is not what it was in the training rows.
        """
        absent = [column.name for column in self.columns if column.name not in table]
        if absent:
            raise DataError(
                f"the table has no column {', '.join(map(repr, absent))}, which the model was trained with; it has "
                f"{', '.join(map(repr, table))}"
            )
        parts = [column(table[column.name], self.missing, first) for column in self.columns]
        return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32))

    def targets(self, table: Mapping[str, Sequence[Cell]]) -> Tensor:
        """The targets: classes, int64 `[N]`, or numbers, float32 `[N, 1]`.

        Raises:
            DataError: if one is missing, or is no class of the training rows.
        """
        name, cells = self.target.name, table[self.target.name]
        if self.target.classes is None:
            values = (_known_numbers(name, cells, self.missing) - self.target.mean) / self.target.std
            return torch.from_numpy(values.astype(np.float32)[:, None])
        place = {label: index for index, label in enumerate(self.target.classes)}
        labels = _known_labels(name, cells, self.missing)
        new = next((label for label in labels if label not in place), None)
        if new is not None:
            raise DataError(f"the target {name!r} has the class {new!r}, which no training row has")
        return torch.tensor([place[label] for label in labels])

    def in_own_unit(self, scores: Tensor) -> Tensor:
        """Predictions of a number that was standardised, in the column's unit."""
        if (self.target.mean, self.target.std) == (0.0, 1.0):
            return scores
        return scores.double() * self.target.std + self.target.mean

    def rows(self, path: Path) -> Iterator[Tensor]:
        """The inputs for each row of a `.csv` or `.parquet` file; some rows at a time are in memory."""
        first = 0
        for piece in column_pieces(path, delimiter=self.delimiter):
            inputs = self(piece, first)
            yield from inputs
            first += len(inputs)
        if not first:
            raise DataError(f"{path} has a header and no rows")

    def to_json(self) -> dict[str, Any]:
        """The value as JSON can hold it."""
        return {
            "kind": self.kind,
            "columns": [column_to_json(column) for column in self.columns],
            "target": self.target._asdict(),
            "missing": list(self.missing),
            "delimiter": self.delimiter,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The value that `to_json` gave.

        Raises:
            DataError: it is not such a value.
        """
        try:
            target = dict(values["target"])
            target["classes"] = None if target["classes"] is None else tuple(target["classes"])
            columns = tuple(column_from_json(column) for column in values["columns"])
            return cls(columns, Target(**target), tuple(values["missing"]), values["delimiter"])
        except (KeyError, TypeError, AssertionError) as error:
            raise DataError(f"the preprocessor is not one of a table: {error!r}") from error


def _check_arguments(
    table: Mapping[str, Any],
    target: str,
    ignore: Sequence[str],
    categorical: Sequence[str],
    ordinal: Mapping[str, Any],
    missing: str,
) -> None:
    if missing not in ("mean", "median", "refuse"):
        raise ValueError(f"missing must be 'mean', 'median' or 'refuse', got {missing!r}")
    given = {"target": [target], "ignore": ignore, "categorical": categorical, "ordinal": ordinal}
    for argument, names in given.items():
        unknown = next((name for name in names if name not in table), None)
        if unknown is not None:
            raise ValueError(f"{argument}: the table has no column {unknown!r}; it has {', '.join(map(repr, table))}")
    twice = {target} & {*ignore, *categorical, *ordinal} or {*ordinal} & {*categorical}
    if twice:
        raise ValueError(f"the column {twice.pop()!r} is named for two purposes: name it once")


def _fit_target(
    name: str, cells: Sequence[Cell], missing: Sequence[str], kind: str | None, standardise: bool
) -> Target:
    if kind not in (None, "classes", "number"):
        raise ValueError(f"target_is must be 'classes' or 'number', got {kind!r}")
    if kind is None and are_numbers(cells, missing):
        raise ValueError(f"the target {name!r} holds numbers: say what they are, target_is='classes' or 'number'")
    if kind == "number":
        values = _known_numbers(name, cells, missing)
        if not standardise:
            return Target(name)
        std = float(values.std())
        return Target(name, None, float(values.mean()), std if std > 0 else 1.0)
    if standardise:
        raise ValueError("standardise_target is for a target that is a number: leave it out")
    classes = in_order(set(_known_labels(name, cells, missing)))
    if len(classes) < 2:
        raise DataError(f"the target {name!r} has the one value {classes[0]!r} in all training rows")
    return Target(name, tuple(classes))


def _known_numbers(name: str, cells: Sequence[Cell], missing: Sequence[str]) -> np.ndarray:
    values = numbers(name, cells, missing)
    _require_all(name, np.isnan(values).tolist())
    return values


def _known_labels(name: str, cells: Sequence[Cell], missing: Sequence[str]) -> list[str]:
    labels = [text_of(cell, missing) for cell in cells]
    _require_all(name, [label is None for label in labels])
    return [label for label in labels if label is not None]


def _require_all(name: str, absent: list[bool]) -> None:
    if any(absent):
        raise DataError(
            f"{sum(absent)} rows have no target {name!r}, the first one is row {absent.index(True)}: remove these rows "
            "from the file, or fill the target in"
        )
