"""A table in a CSV or Parquet file as a data set: split, and preprocessed as the training split says."""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from functrain.data.columns import Columns, read_columns
from functrain.data.datasets import SPLITS, Arrays
from functrain.data.folds import k_fold
from functrain.data.splits import split as index_split
from functrain.data.table_columns import MISSING, are_numbers, text_of
from functrain.data.table_preprocessor import Missing, TablePreprocessor, TargetKind
from functrain.foundation.errors import DataError
from functrain.foundation.numbers import is_integer

FRACTIONS = (0.6, 0.2, 0.2)


def table(
    split: str = "train",
    *,
    path: str,
    target: str,
    target_is: TargetKind | None = None,
    standardise_target: bool = False,
    ignore: Sequence[str] = (),
    categorical: Sequence[str] = (),
    ordinal: dict[str, list[Any]] | None = None,
    missing: Missing = "mean",
    missing_values: Sequence[str] = MISSING,
    most_categories: int = 100,
    fractions: Sequence[float] = FRACTIONS,
    fold: int | None = None,
    folds: int = 5,
    group: str | None = None,
    seed: int = 0,
    delimiter: str = ",",
) -> Arrays | None:
    """A table in a CSV or Parquet file: numbers standardised, categories one-hot, missing values filled in.

    All of it is measured on the training rows. It is the data set's `preprocessor`, which a run's checkpoints hold:
    `functrain predict RUN new.csv` applies it to raw rows.

    Args:
        split: "train", "val" or "test".
        path: of the file, `.csv` with a header or `.parquet`.
        target: the column that is predicted.
        target_is: "classes" or "number"; must be said of a column of numbers.
        standardise_target: predict a number with mean 0 and standard deviation 1 over the training rows; predictions
            come in the column's unit.
        ignore: columns that are not used, such as a row's name.
        categorical: columns of numbers that name categories, such as postal codes.
        ordinal: column -> its categories from the lowest to the highest, which become one number.
        missing: what stands for a missing number, "mean" or "median"; a further feature marks it. Or "refuse".
        missing_values: cells that count as missing.
        most_categories: more in a column are refused: they may name the rows.
        fractions: shares of the rows for "train", "val" and "test"; 0: there is no such split. Classes have equal
            shares in all splits.
        fold: of a cross-validation, 0 to `folds` - 1: this part of the rows is "val", and all others are "train". There
            is no "test" then, and `fractions` cannot be given.
        folds: parts of the cross-validation, 2 or more.
        group: a column, such as the patient: all rows of a group are in one split, or fold. It is not used otherwise.
        seed: of the split.
        delimiter: between the cells of a CSV file.

    Returns:
        Features, float32 `[N, F]`, and classes, int64 `[N]`, or numbers, float32 `[N, 1]`; None for a split with the
        fraction 0.

    Raises:
        ValueError: for an argument that does not fit the table.
        DataError: if the file cannot be read, or a column cannot be used; the message names it.
        ModuleNotFoundError: for a `.parquet` file without pyarrow.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = [f"{i},{'ab'[i % 2]},{'no' if i < 10 else 'yes'}" for i in range(20)]
        ...     with open(f"{folder}/table.csv", "w") as file:
        ...         _ = file.write("\\n".join(["size,kind,ill", *rows]))
        ...     data = table("train", path=f"{folder}/table.csv", target="ill")
        >>> data.preprocessor.features, [part.shape for part in data.tensors]
        (['size', 'kind=a', 'kind=b'], [torch.Size([12, 3]), torch.Size([12])])
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    if len(fractions) != len(SPLITS) or not fractions[0] > 0:
        raise ValueError(
            f"fractions must be the shares of train, val and test, the first above 0; got {list(fractions)}"
        )
    _check_fold(fold, folds, fractions)
    columns = _read(os.path.abspath(path), delimiter, _state_of(path))
    for argument, name in (("target", target), ("group", group)):
        if name is not None and name not in columns:
            raise ValueError(f"{argument}: {path} has no column {name!r}; it has {', '.join(map(repr, columns))}")
    marks = tuple(missing_values)
    has_classes = target_is != "number" and (target_is == "classes" or not are_numbers(columns[target], marks))
    labelled = _Labelled(columns, target if has_classes else None, group, marks)
    rows = labelled.splits(fractions, seed) if fold is None else labelled.of_fold(fold, folds, seed)
    preprocessor = TablePreprocessor.fit(
        _part(columns, rows["train"]),
        target=target,
        target_is=target_is,
        standardise_target=standardise_target,
        ignore=[*ignore, *([] if group is None else [group])],
        categorical=categorical,
        ordinal=ordinal,
        missing=missing,
        missing_values=marks,
        most_categories=most_categories,
        delimiter=delimiter,
    )
    if split not in rows:
        return None
    chosen = _part(columns, rows[split])
    return Arrays(preprocessor(chosen), preprocessor.targets(chosen), preprocessor=preprocessor)


class _Labelled(NamedTuple):
    """Rows that are divided.

    Attributes:
        columns: of the table.
        target: a column of classes, which every part has equal shares of; None: there are none.
        group: a column whose rows of one value stay together.
        missing: cells that count as missing.
    """

    columns: Columns
    target: str | None
    group: str | None
    missing: tuple[str, ...]

    def splits(self, fractions: Sequence[float], seed: int) -> dict[str, list[int]]:
        """The rows of each split that there is."""
        shares = [fraction for fraction in fractions if fraction]
        parts = index_split(self._labels, shares, seed=seed, stratify=self.target is not None, groups=self._groups)
        present = [name for name, fraction in zip(SPLITS, fractions, strict=True) if fraction]
        return {name: part.tolist() for name, part in zip(present, parts, strict=True)}

    def of_fold(self, fold: int, folds: int, seed: int) -> dict[str, list[int]]:
        """The rows that train and validate in a fold."""
        found = k_fold(self._labels, folds, seed=seed, stratify=self.target is not None, groups=self._groups)[fold]
        return {"train": found.train.tolist(), "val": found.val.tolist()}

    @property
    def _labels(self) -> int | list[str]:
        return len(next(iter(self.columns.values()))) if self.target is None else self._texts(self.target)

    @property
    def _groups(self) -> list[str] | None:
        return None if self.group is None else self._texts(self.group)

    def _texts(self, column: str) -> list[str]:
        return [text_of(cell, self.missing) or "" for cell in self.columns[column]]


def _check_fold(fold: int | None, folds: int, fractions: Sequence[float]) -> None:
    if not is_integer(folds, 2):
        raise ValueError(f"folds must be a whole number >= 2, got {folds!r}")
    if fold is None:
        return
    if not is_integer(fold, 0) or fold >= folds:
        raise ValueError(f"fold must be a whole number from 0 to {folds - 1}, got {fold!r}")
    if tuple(fractions) != FRACTIONS:
        raise ValueError(
            f"give fold or fractions, not both: the shares of {folds} folds are equal; got {list(fractions)}"
        )


def _part(columns: Columns, rows: Sequence[int]) -> Columns:
    return {name: [cells[row] for row in rows] for name, cells in columns.items()}


def _state_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """What changes if a file does."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"there is no file {path} to read a table from: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1)  # the three splits of a run are of one file
def _read(path: str, delimiter: str, state: tuple[int, int]) -> Columns:  # noqa: ARG001 - a changed file is read again
    return read_columns(path, delimiter=delimiter)
