"""Arrays on disk as a data set: larger than memory, shared by all worker processes."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from functrain.data.array_files import ArrayFile
from functrain.data.datasets import SPLITS
from functrain.foundation.errors import DataError

PARTS = ("inputs", "targets", "weight")  # of a batch, and the names of their files
Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class MemoryMapped(Dataset[Any]):
    """Arrays in `.npy` files whose first dimension counts the examples; a row is read when its example is.

    A data set that is pickled for a worker holds the paths, not the numbers. The files are never written to.

    Args:
        *arrays: for each array its `.npy` file; a list of files that follow one another (shards); or a pattern such as
            "inputs-*.npy", whose files follow one another by name.
        transform: called as `transform(*sample)` for every example that is read, returns the sample to use.

    Raises:
        DataError: if a file is not there, is no array, is cut off, or the arrays have unequal lengths.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> np.save(f"{folder.name}/inputs.npy", np.arange(6.0).reshape(3, 2))
        >>> data = MemoryMapped(f"{folder.name}/inputs.npy")
        >>> len(data), data[2]
        (3, (tensor([4., 5.], dtype=torch.float64),))
        >>> folder.cleanup()
    """

    def __init__(self, *arrays: Source, transform: Callable[..., Any] | None = None) -> None:
        if not arrays:
            raise ValueError("MemoryMapped needs at least one .npy file, for example MemoryMapped('x.npy', 'y.npy')")
        self.arrays = tuple(ArrayFile(files_of(array)) for array in arrays)
        self.transform = transform
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            named = ", ".join(f"{array.paths[0]}: {len(array):,}" for array in self.arrays)
            raise DataError(f"all arrays need the same number of rows, one for each example; got {named}")
        if not lengths[0]:
            raise DataError(f"the data set is empty: {self.arrays[0].paths[0]} holds 0 rows")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> Any:
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"index must lie in 0..{length - 1}, got {index}")
        row = np.array([index % length])
        sample = tuple(torch.from_numpy(array.rows(row))[0] for array in self.arrays)
        return sample if self.transform is None else self.transform(*sample)

    def take(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, ...]:
        """Rows of the arrays, untransformed, read in the order in which they lie on disk.

        Args:
            indices: int64 `[B]`, each in 0..N-1.

        Returns:
            One tensor `[B, ...]` for each array.
        """
        rows = torch.as_tensor(indices, dtype=torch.int64).numpy()
        return tuple(torch.from_numpy(array.rows(rows)) for array in self.arrays)

    @property
    def targets(self) -> Tensor | None:
        """All of the second array, if it has one number for each example; None if not."""
        if len(self.arrays) < 2 or self.arrays[1].shape:
            return None
        return torch.from_numpy(self.arrays[1].rows(np.arange(len(self))))


def memory_mapped(split: str = "train", *, path: str) -> Any:
    """Arrays on disk: the files `inputs.npy`, `targets.npy` and, optionally, `weight.npy` in a folder for each split.

    An array may lie in several files, `inputs-0.npy`, `inputs-1.npy`, ..., which follow one another by name.

    Args:
        split: "train", "val" or "test": the folder's name in `path`.
        path: the folder that holds those of the splits.

    Returns:
        The data set; None if there is no folder for the split.

    Raises:
        ValueError: for another split.
        DataError: if a file cannot be used.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    folder = Path(path) / split
    if not folder.is_dir():
        if split == "train":
            raise DataError(f"there is no folder {folder} with inputs.npy and targets.npy")
        return None
    found = {name: sorted(folder.glob(f"{name}.npy")) or sorted(folder.glob(f"{name}-*.npy")) for name in PARTS}
    missing = next((name for name in PARTS[:2] if not found[name]), None)
    if missing is not None:
        raise DataError(f"there is no file {missing}.npy, or {missing}-*.npy, in {folder}")
    return MemoryMapped(*(files for files in found.values() if files))


def files_of(source: Source) -> list[Path]:
    """The files that a path, a list of paths or a pattern stands for.

    Raises:
        DataError: if a pattern has no file.
    """
    if not isinstance(source, (str, os.PathLike)):
        return [Path(each) for each in source]
    path = Path(source)
    if "*" not in path.name:
        return [path]
    found = sorted(path.parent.glob(path.name))
    if not found:
        raise DataError(f"there is no file {path}")
    return found
