"""Arrays in `.npy` files that are mapped into memory: only the rows that are asked for are read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functrain.foundation.errors import DataError


class ArrayFile:
    """An array in one `.npy` file, or in several that follow one another (shards), read-only.

    Only the paths travel to other processes; each process opens the files itself, when it first reads a row.

    Args:
        paths: the files, in their order.

    Attributes:
        dtype: of the numbers, in the machine's byte order.
        shape: of a row.

    Raises:
        DataError: if a file is no array of numbers, is shorter than its header says, or does not go with the others.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise DataError("there is no file to read an array from")
        self.paths = [Path(os.path.abspath(path)) for path in paths]
        self._mapped: list[np.ndarray] | None = None
        self._ends: np.ndarray | None = None
        arrays = self._arrays()
        first = arrays[0]
        for path, array in zip(self.paths, arrays, strict=True):
            if (array.shape[1:], array.dtype) != (first.shape[1:], first.dtype):
                raise DataError(
                    f"{path} holds rows of {list(array.shape[1:])}, {array.dtype}, and {self.paths[0]} rows of "
                    f"{list(first.shape[1:])}, {first.dtype}: files of one array must agree"
                )
        self.dtype, self.shape = first.dtype.newbyteorder("="), first.shape[1:]
        self._ends = np.cumsum([len(array) for array in arrays])

    @property
    def ends(self) -> np.ndarray:
        """The number of the row after each file's last."""
        assert self._ends is not None
        return self._ends

    def __len__(self) -> int:
        return int(self.ends[-1])

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """A copy of some rows, `[B, ...]`, read in the order in which they lie in the files.

        Args:
            indices: int64 `[B]`, each in 0..N-1.
        """
        found = np.empty((len(indices), *self.shape), self.dtype)
        shards = np.searchsorted(self.ends, indices, side="right")
        arrays = self._arrays()
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            own = indices[places] - (self.ends[shard - 1] if shard else 0)
            order = np.argsort(own)
            found[places[order]] = arrays[shard][own[order]]
        return found

    def _arrays(self) -> list[np.ndarray]:
        if self._mapped is None:
            found = [map_array(path) for path in self.paths]
            if self._ends is not None and np.cumsum([len(array) for array in found]).tolist() != self._ends.tolist():
                raise DataError(f"{self.paths[0]}, or a file after it, has other rows than when the data set was made")
            self._mapped = found
        return self._mapped

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}


def map_array(path: Path) -> np.ndarray:
    """A `.npy` file as an array whose numbers stay on disk until they are read; it cannot be written to.

    Raises:
        DataError: if it is no array of numbers with a row for each example, or is shorter than its header says.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (ValueError, OSError, EOFError) as error:
        short = "mmap length" in str(error) or "cannot mmap" in str(error)
        reason = "it is shorter than its header says; its writing was cut off" if short else str(error)
        raise DataError(f"{path} cannot be read as a .npy file: {reason}") from error
    if not isinstance(array, np.ndarray) or array.ndim == 0 or array.dtype.kind not in "biufc":
        kind = f"shape {list(array.shape)}, {array.dtype}" if isinstance(array, np.ndarray) else "an archive of arrays"
        raise DataError(f"{path} must hold numbers with a row for each example; got {kind}")
    return array
