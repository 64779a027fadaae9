"""Columns of a table as numbers: each kind is fitted on the training rows and applied to any."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from functrain.data.columns import Cell
from functrain.data.iterables import DataWarning
from functrain.foundation.errors import DataError

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
SHOWN = 5  # values in a message


def text_of(cell: Cell, missing: Sequence[str]) -> str | None:
    """A cell as the name of a category; None if it is missing. Whole numbers have no decimal point.

    Example:
        >>> text_of(" red ", ("",)), text_of(2.0, ()), text_of("", ("",)), text_of(float("nan"), ())
        ('red', '2', None, None)
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    text = str(cell).strip()
    return None if text in missing else text


def number_of(cell: Cell, missing: Sequence[str]) -> float | None:
    """A cell as a number; NaN if it is missing, None if it is none.

    Example:
        >>> number_of("1e3", ()), number_of("", ("",)), number_of("red", ()), number_of(True, ())
        (1000.0, nan, None, 1.0)
    """
    if isinstance(cell, str):
        text = cell.strip()
        if text in missing:
            return math.nan
        if "_" in text:  # Python would take it for a separator of digits
            return None
        try:
            return float(text)
        except ValueError:
            return None
    return math.nan if cell is None else float(cell)


@dataclass(frozen=True)
class Numbers:
    """A column of numbers: mean 0 and standard deviation 1 over the training rows.

    Attributes:
        name: of the column.
        mean, std: of the training rows' values; a standard deviation of 0 counts as 1.
        fill: what stands for a missing value; None: it is refused.
        marked: whether a further feature says where a value was missing, as it was in training rows.
    """

    kind: ClassVar[str] = "numbers"

    name: str
    mean: float
    std: float
    fill: float | None
    marked: bool

    @classmethod
    def fit(cls, name: str, cells: Sequence[Cell], missing: Sequence[str], strategy: str) -> Self:
        """Measure a column of the training rows. `strategy`: "mean", "median" or "refuse"."""
        values = numbers(name, cells, missing)
        known = values[~np.isnan(values)]
        if not len(known):
            raise DataError(f"the column {name!r} has no value in the training rows; leave it out: ignore=[{name!r}]")
        if len(known) < len(values) and strategy == "refuse":
            row = int(np.isnan(values).argmax())
            raise DataError(
                f"the column {name!r} has no value in training row {row}, and missing='refuse'. Fill it in, leave the "
                "column out (ignore), or take missing='mean' or 'median'"
            )
        mean, std = float(known.mean()), float(known.std())
        fill = {"mean": mean, "median": float(np.median(known)), "refuse": None}[strategy]
        return cls(name, mean, std if std > 0 else 1.0, fill, len(known) < len(values))

    @property
    def features(self) -> list[str]:
        """Names of the model's inputs."""
        return [self.name, f"{self.name} is missing"] if self.marked else [self.name]

    def __call__(self, cells: Sequence[Cell], missing: Sequence[str], first: int = 0) -> np.ndarray:
        """The features, float64 `[N, F]`; `first` is the number of the first row."""
        values = numbers(self.name, cells, missing, first)
        absent = np.isnan(values)
        if self.fill is None and absent.any():
            raise DataError(
                f"the column {self.name!r} has no value in row {first + int(absent.argmax())}; it had one in every "
                "training row, and missing='refuse'"
            )
        filled = np.where(absent, np.nan if self.fill is None else self.fill, values)
        scaled = (filled - self.mean) / self.std
        return np.stack([scaled, absent], 1) if self.marked else scaled[:, None]


@dataclass(frozen=True)
class Categories:
    """A column of categories: a feature for each, 1 where the row has it and else 0 (one-hot).

    A category that the training rows do not have is 0 everywhere, with a `DataWarning`.

    Attributes:
        name: of the column.
        categories: in their order; None is a missing value, if training rows had one.
    """

    kind: ClassVar[str] = "categories"

    name: str
    categories: tuple[str | None, ...]

    @classmethod
    def fit(cls, name: str, cells: Sequence[Cell], missing: Sequence[str], most: int) -> Self:
        """The categories of the training rows, at most so many."""
        found = {text_of(cell, missing) for cell in cells}
        names = in_order(found - {None})
        if not names:
            raise DataError(f"the column {name!r} has no value in the training rows; leave it out: ignore=[{name!r}]")
        if len(names) > most:
            raise DataError(
                f"the column {name!r} has {len(names)} different values in {len(cells)} training rows, more than "
                f"most_categories={most}. Leave it out if it names the rows: ignore=[{name!r}]; or allow more"
            )
        return cls(name, (*names, None) if None in found else tuple(names))

    @property
    def features(self) -> list[str]:
        """Names of the model's inputs."""
        return [f"{self.name} is missing" if each is None else f"{self.name}={each}" for each in self.categories]

    def __call__(self, cells: Sequence[Cell], missing: Sequence[str], first: int = 0) -> np.ndarray:  # noqa: ARG002
        """The features, float64 `[N, F]`."""
        place = {category: index for index, category in enumerate(self.categories)}
        found = [text_of(cell, missing) for cell in cells]
        unknown = sorted({each for each in found if each is not None and each not in place})
        if unknown:
            warnings.warn(
                f"the column {self.name!r} has values that no training row has: {_listed(unknown)}. They count as none "
                f"of {_listed(each for each in self.categories if each is not None)}",
                DataWarning,
                stacklevel=2,
            )
        codes = np.array([place.get(each, -1) for each in found], int)
        return (codes[:, None] == np.arange(len(self.categories))).astype(float)


@dataclass(frozen=True)
class Ordered:
    """A column of categories with an order: their places, standardised over the training rows.

    Attributes:
        name: of the column.
        categories: from the lowest to the highest.
        places: standardises the places.
    """

    kind: ClassVar[str] = "ordered"

    name: str
    categories: tuple[str, ...]
    places: Numbers

    @classmethod
    def fit(
        cls, name: str, cells: Sequence[Cell], missing: Sequence[str], strategy: str, categories: Sequence[str]
    ) -> Self:
        """Measure a column of the training rows."""
        names = [str(category) for category in categories]
        if len(set(names)) < max(len(names), 2):
            raise ValueError(f"ordinal: the categories of {name!r} must be two or more, each once; got {names}")
        places = _places(name, cells, missing, names)
        return cls(name, tuple(names), Numbers.fit(name, places, (), strategy))

    @property
    def features(self) -> list[str]:
        """Names of the model's inputs."""
        return self.places.features

    def __call__(self, cells: Sequence[Cell], missing: Sequence[str], first: int = 0) -> np.ndarray:
        """The features, float64 `[N, F]`; `first` is the number of the first row."""
        return self.places(_places(self.name, cells, missing, self.categories), (), first)


Column = Numbers | Categories | Ordered


def column_to_json(column: Column) -> dict[str, Any]:
    """A column as JSON can hold it."""
    values = {name: getattr(column, name) for name in column.__dataclass_fields__}
    if isinstance(column, Ordered):
        values["places"] = column_to_json(column.places)
    return {"kind": column.kind, **values}


def column_from_json(values: Mapping[str, Any]) -> Column:
    """The column that `column_to_json` wrote."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name != "kind"
    }
    if values["kind"] == Numbers.kind:
        return Numbers(**given)
    if values["kind"] == Categories.kind:
        return Categories(**given)
    places = column_from_json(values["places"])
    assert isinstance(places, Numbers)
    return Ordered(given["name"], given["categories"], places)


def are_numbers(cells: Sequence[Cell], missing: Sequence[str]) -> bool:
    """Whether each value of a column is a number; text and truth values are categories."""
    return not any(isinstance(cell, bool) or number_of(cell, missing) is None for cell in cells)


def numbers(name: str, cells: Sequence[Cell], missing: Sequence[str], first: int = 0) -> np.ndarray:
    """The values of a column, float64 `[N]`, NaN where they are missing; `first` is the number of the first row.

    Raises:
        DataError: if one is no number, or infinite.
    """
    found = [number_of(cell, missing) for cell in cells]
    bad = next((row for row, value in enumerate(found) if value is None or math.isinf(value)), None)
    if bad is not None:
        raise DataError(f"the column {name!r} holds numbers, but row {first + bad} has {cells[bad]!r}")
    return np.array(found, float)


def in_order(names: Iterable[str | None]) -> list[str]:
    """Names in their order: by value if all of them are numbers, else by their letters.

    Example:
        >>> in_order({"10", "9"}), in_order({"b", "a", "10"})
        (['9', '10'], ['10', 'a', 'b'])
    """
    given = sorted(name for name in names if name is not None)
    values = [number_of(name, ()) for name in given]
    if any(value is None or math.isnan(value) for value in values):
        return given
    return [name for _, name in sorted(zip(values, given, strict=True), key=lambda pair: (pair[0], pair[1]))]


def _places(name: str, cells: Sequence[Cell], missing: Sequence[str], categories: Sequence[str]) -> list[Cell]:
    place = {category: float(index) for index, category in enumerate(categories)}
    found = [text_of(cell, missing) for cell in cells]
    unknown = sorted({each for each in found if each is not None and each not in place})
    if unknown:
        raise DataError(
            f"the column {name!r} has values that its order does not name: {_listed(unknown)}; ordinal has "
            f"{_listed(categories)}"
        )
    return [None if each is None else place[each] for each in found]


def _listed(values: Iterable[str]) -> str:
    given = list(values)
    return ", ".join(map(repr, given[:SHOWN])) + (f" and {len(given) - SHOWN} more" if len(given) > SHOWN else "")
