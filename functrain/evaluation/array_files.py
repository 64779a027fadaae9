"""Arrays in files without a header: rows are appended, and read again a part at a time."""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from functrain.foundation.errors import FunctrainError

Array = NDArray[Any]
_AT_ONCE = 1 << 24  # bytes


@dataclass
class ArrayFile:
    """An array `[rows, *row]`.

    Attributes:
        path: the file.
        dtype: of its numbers.
        row: the shape of a row.
        rows: how many there are.
        crc: the CRC-32 of their bytes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = ArrayFile(Path(folder, "numbers"), np.dtype(float), (2,))
        ...     file.append(np.array([[1.0, 2.0], [3.0, 4.0]]))
        ...     file.read(1, 2)
        array([[3., 4.]])
    """

    path: Path
    dtype: np.dtype[Any]
    row: tuple[int, ...]
    rows: int = 0
    crc: int = 0

    @property
    def row_bytes(self) -> int:
        """The size of a row."""
        return self.dtype.itemsize * math.prod(self.row)

    def append(self, values: Array) -> None:
        """Add rows `[n, *row]`. What was appended outlives a killed process.

        Raises:
            FunctrainError: if the file cannot be written.
        """
        content = np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data
        try:
            with self.path.open("ab") as file:
                file.write(content)
        except OSError as error:
            raise FunctrainError(f"{self.path} cannot be written: {error.strerror}") from error
        self.rows, self.crc = self.rows + len(values), zlib.crc32(content, self.crc)

    def read(self, start: int, stop: int) -> Array:
        """The rows from `start` to before `stop`."""
        count = (stop - start) * math.prod(self.row)
        found = np.fromfile(self.path, self.dtype, count, offset=start * self.row_bytes)
        return found.reshape(stop - start, *self.row)

    def array(self) -> Array:
        """All rows, read-only, which the system reads from the file when they are looked at."""
        if not self.rows or not self.row_bytes:
            return np.empty((self.rows, *self.row), self.dtype)
        return np.memmap(self.path, self.dtype, "r", shape=(self.rows, *self.row))

    def restored(self) -> bool:
        """Whether the file holds `rows` rows with the CRC `crc`; what follows them is cut off."""
        size, crc = self.rows * self.row_bytes, 0
        try:
            with self.path.open("r+b") as file:
                for start in range(0, size, _AT_ONCE):
                    crc = zlib.crc32(file.read(min(_AT_ONCE, size - start)), crc)
                if file.tell() != size or crc != self.crc:
                    return False
                file.truncate(size)
        except OSError:
            return False
        return True


@dataclass
class ColumnFile:
    """An array `[rows, columns]` that is written by rows and read by columns.

    Attributes:
        path: the file; it holds one column after another.
        dtype: of the numbers.
        rows, columns: how many there will be.
    """

    path: Path
    dtype: np.dtype[Any]
    rows: int
    columns: int
    _written: int = 0

    def append(self, values: Array) -> None:
        """Add rows `[n, columns]`.

        Raises:
            FunctrainError: if the file cannot be written.
        """
        by_column = np.ascontiguousarray(values.T, self.dtype)
        try:
            with self.path.open("r+b" if self._written else "wb") as file:
                for number, part in enumerate(by_column):
                    file.seek((number * self.rows + self._written) * self.dtype.itemsize)
                    file.write(part.data)
        except OSError as error:
            raise FunctrainError(f"{self.path} cannot be written: {error.strerror}") from error
        self._written += len(values)

    def column(self, number: int) -> Array:
        """One of them, `[rows]`."""
        return np.fromfile(self.path, self.dtype, self.rows, offset=number * self.rows * self.dtype.itemsize)
