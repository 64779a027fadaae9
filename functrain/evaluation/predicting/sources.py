"""Inputs from files, one after another: images, arrays, tables."""

import csv
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from functrain.data.columns import SUFFIXES as TABLES
from functrain.data.image_files import SUFFIXES as IMAGES
from functrain.data.image_files import ImagePreprocessor, is_image, read_image
from functrain.data.preprocessing import Preprocessor
from functrain.data.table_preprocessor import TablePreprocessor
from functrain.foundation.errors import DataError

_AT_ONCE = 4096  # rows of a table
_UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


class Sample(NamedTuple):
    """One input.

    Attributes:
        name: of its file, or its number.
        value: what the model takes, without the dimension of the batch.
    """

    name: str
    value: Tensor


def read_inputs(
    path: str | Path, *, key: str | None = None, preprocessor: Preprocessor | None = None
) -> Iterator[Sample]:
    """The inputs in a file or folder; one at a time is in memory, or a piece of a table.

    | file | inputs |
    |---|---|
    | `.npy` | its rows |
    | `.npz` | the rows of its array `inputs`, of its only array, or of the one that `key` names |
    | `.csv`, `.parquet` | rows of numbers as float32, a header is left out; or as a table's preprocessor says |
    | `.png`, `.jpg`, ... | float32 `[C, H, W]` from 0 to 1, C being 1 for grey images and else 3 |
    | a folder | its images in the order of their names |

    Args:
        path: the file or folder.
        key: of a `.npz`: the array; of a table: the columns, separated by commas.
        preprocessor: what the model was trained with (`functrain.data.preprocessing`). It is applied to tables or to
            images; arrays are taken as they are.

    Raises:
        DataError: if there is nothing to read, or it cannot be read; the file and line are named.
        ValueError: if columns are chosen that the preprocessor chooses.
        ModuleNotFoundError: for a `.parquet` file without pyarrow, for an image without pillow.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "rows.csv").write_text("a,b\\n1,2\\n3,4\\n")
        ...     [(sample.name, sample.value.tolist()) for sample in read_inputs(f"{folder}/rows.csv")]
        [('0', [1.0, 2.0]), ('1', [3.0, 4.0])]
    """
    path = Path(path)
    read = preprocessor if isinstance(preprocessor, ImagePreprocessor) else read_image
    if path.is_dir():
        return _images(path, read)
    if not path.is_file():
        raise DataError(f"there is no file or folder {path} to read inputs from")
    if is_image(path.name):
        return iter([Sample(path.stem, read(path))])
    if isinstance(preprocessor, TablePreprocessor) and path.suffix.lower() in TABLES:
        if key is not None:
            raise ValueError(
                f"the columns {key!r} are chosen, but the model was trained with a table, whose columns it knows by "
                "name: leave --columns out"
            )
        return (Sample(str(number), row) for number, row in enumerate(preprocessor.rows(path)))
    if path.suffix.lower() not in _READERS:
        raise DataError(f"inputs are read from {', '.join([*_READERS, *IMAGES])} and folders of images; got {path}")
    return _READERS[path.suffix.lower()](path, key)


def _images(folder: Path, read: Callable[[Path], Tensor]) -> Iterator[Sample]:
    files = sorted(filter(is_image, os.listdir(folder)))
    if not files:
        raise DataError(f"there is no image in {folder}; images end in {', '.join(IMAGES)}")
    stems = Counter(Path(name).stem for name in files)
    return (
        Sample(stem if stems[stem] == 1 else name, read(folder / name)) for name in files for stem in [Path(name).stem]
    )


def _npy(path: Path, key: str | None) -> Iterator[Sample]:  # noqa: ARG001 - it has one array
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    _check_rows(path, array.shape, array.dtype)
    return _samples(array)


def _npz(path: Path, key: str | None) -> Iterator[Sample]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            chosen = key or ("inputs" if "inputs" in names else names[0] if len(names) == 1 else "")
            if chosen in names:
                with archive.open(f"{chosen}.npy") as file:
                    shape, _, dtype = _header(file)
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if chosen not in names:
        raise DataError(f"{path} has no array {chosen!r}; name one of {', '.join(names)} (--key)")
    _check_rows(path, shape, dtype)
    return _unzipped(path, chosen)


def _unzipped(path: Path, name: str) -> Iterator[Sample]:
    """The rows of an array in a `.npz`, of which one at a time is in memory."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            shape, by_column, dtype = _header(file)
            if by_column:
                with np.load(path, allow_pickle=False) as arrays:
                    yield from _samples(arrays[name])
                return
            size = dtype.itemsize * math.prod(shape[1:])
            yield from _samples(np.frombuffer(file.read(size), dtype).reshape(shape[1:]) for _ in range(shape[0]))
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns are stored one after another, and dtype."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _check_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if not shape or not shape[0] or dtype.kind not in "biuf":
        raise DataError(f"{path} must hold numbers with a row for each input; got shape {list(shape)}, {dtype}")


def _samples(rows: Iterable[np.ndarray[Any, Any]]) -> Iterator[Sample]:
    return (
        Sample(str(number), torch.from_numpy(np.array(row, row.dtype.newbyteorder("="))))
        for number, row in enumerate(rows)
    )


def _csv(path: Path, key: str | None) -> Iterator[Sample]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = (row for row in csv.reader(file) if row)
        first = next(lines, None)
        if first is None:
            raise DataError(f"{path} is empty")
        columns = _columns(path, first, key)
        has_header = any(_number(cell) is None for cell in first)
        number = 0
        for row in lines if has_header else _before(first, lines):
            values = [_number(row[column]) if column < len(row) else None for column in columns]
            if None in values or len(row) != len(first):
                raise DataError(f"row {number} of {path} must be {len(first)} numbers; got {','.join(row)[:80]!r}")
            yield Sample(str(number), torch.tensor(values, dtype=torch.float32))
            number += 1
    if not number:
        raise DataError(f"{path} has a header and no rows")


def _columns(path: Path, header: list[str], key: str | None) -> list[int]:
    if key is None:
        return list(range(len(header)))
    wanted = [name.strip() for name in key.split(",")]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(header)}")
    return [header.index(name) for name in wanted]


def _before(first: list[str], rest: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from rest


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _parquet(path: Path, key: str | None) -> Iterator[Sample]:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "parquet files are read with pyarrow, which is not installed. Run: pip install pyarrow"
        ) from error
    number = 0
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        columns = [names[column] for column in _columns(path, names, key)]
        for piece in file.iter_batches(_AT_ONCE, columns=columns):
            table = np.stack([column.to_numpy(zero_copy_only=False) for column in piece.columns], 1).astype(np.float32)
            for row in table:
                yield Sample(str(number), torch.from_numpy(row))
                number += 1


_READERS: dict[str, Callable[[Path, str | None], Iterator[Sample]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
    ".parquet": _parquet,
}
