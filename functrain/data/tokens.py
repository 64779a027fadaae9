"""Windows of a long text of tokens, on disk: any window is found by its number, without reading what comes before."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from functrain.data.array_files import map_array
from functrain.data.datasets import SPLITS
from functrain.data.memory_mapped import Source, files_of
from functrain.foundation.errors import DataError
from functrain.foundation.numbers import is_integer

DTYPES = {"uint8": np.uint8, "uint16": np.uint16, "int32": np.int32, "uint32": np.uint32, "int64": np.int64}
FRACTIONS = (0.9, 0.05, 0.05)


class TokenWindows(Dataset[Any]):
    """Each window of `length` tokens, and the token after each of them: for language models.

    Window i begins at token `i * length` of its file; no window reaches from one file into another. The files are
    mapped into memory, read-only; those of a worker are opened by the worker.

    Args:
        files: a file, a list of files (shards), or a pattern such as "train-*.bin". `.npy` files say what they hold;
            of all others the bytes are numbers of the type `dtype`, such as those of a text.
        length: tokens of a window.
        dtype: "uint8" (the bytes of a text), "uint16", "int32", "uint32" or "int64", in little-endian order. Not of
            `.npy` files.
        part: where windows lie in each file: from this fraction of its tokens to that one.

    Raises:
        ValueError: if an argument is out of range.
        DataError: if a file cannot be used, or there is no window.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "text.txt").write_bytes(bytes(range(10)))
        ...     data = TokenWindows(f"{folder}/text.txt", 4, dtype="uint8")
        ...     len(data), data[1]
        (2, (tensor([4, 5, 6, 7]), tensor([5, 6, 7, 8])))
    """

    def __init__(
        self, files: Source, length: int, *, dtype: str = "uint16", part: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        if not is_integer(length, 1):
            raise ValueError(f"length must be a whole number >= 1, got {length!r}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, got {dtype!r}")
        if not 0.0 <= part[0] < part[1] <= 1.0:
            raise ValueError(f"part must be two fractions, ascending from 0 to 1; got {part!r}")
        self.files = [Path(os.path.abspath(path)) for path in files_of(files)]
        self.length, self.dtype = length, dtype
        self._mapped: list[np.ndarray] | None = None
        self._sizes: list[int] = []
        self._sizes = sizes = [len(tokens) for tokens in self._tokens()]
        self._begins = [round(part[0] * size) for size in sizes]
        counts = [max(0, (round(part[1] * size) - begin - 1) // length) for size, begin in zip(sizes, self._begins)]
        self._ends = np.cumsum(counts)
        if not len(self):
            raise DataError(f"{self.files[0]} holds {sizes[0]:,} tokens, too few for a window of length={length}")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must lie in 0..{len(self) - 1}, got {index}")
        index %= len(self)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        begin = self._begins[shard] + (index - (int(self._ends[shard - 1]) if shard else 0)) * self.length
        tokens = torch.from_numpy(self._tokens()[shard][begin : begin + self.length + 1].astype(np.int64))
        return tokens[:-1], tokens[1:]

    def _tokens(self) -> list[np.ndarray]:
        if self._mapped is None:
            found = [_mapped(path, self.dtype) for path in self.files]
            if self._sizes and [len(each) for each in found] != self._sizes:
                raise DataError(
                    f"{self.files[0]}, or a file after it, has other tokens than when the data set was made"
                )
            self._mapped = found
        return self._mapped

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}


def tokens(split: str = "train", *, path: str, length: int = 128, dtype: str = "uint16") -> Any:
    """Windows of a text of tokens, to foresee each next token: in a file, or in a folder with files for each split.

    Args:
        split: "train", "val" or "test".
        path: a file, of which the first 90 % are "train", then 5 % "val" and 5 % "test"; or a folder with files whose
            names begin with the split's: `train.bin`, `train-0.npy`, ...
        length: tokens of a window.
        dtype: of a file's numbers: "uint8" (the bytes of a text), "uint16", "int32", "uint32" or "int64", in
            little-endian order; `.npy` files say it themselves.

    Returns:
        Tokens, int64 `[length]`, and the token after each of them; None if there is no such split.

    Raises:
        ValueError: if an argument is out of range.
        DataError: if a file cannot be used, or there is no window.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    source = Path(path)
    if source.is_dir():
        files = sorted(each for each in source.glob(f"{split}*") if each.is_file())
        if not files and split == "train":
            raise DataError(f"there is no file in {source} whose name begins with 'train'")
        return TokenWindows(files, length, dtype=dtype) if files else None
    place = SPLITS.index(split)
    begin, end = sum(FRACTIONS[:place]), sum(FRACTIONS[: place + 1])
    return TokenWindows(source, length, dtype=dtype, part=(begin, min(end, 1.0)))


def _mapped(path: Path, dtype: str) -> np.ndarray:
    if path.suffix == ".npy":
        array = map_array(path)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(f"{path} must hold tokens, integers [N]; got shape {list(array.shape)}, {array.dtype}")
        return array
    kind = np.dtype(DTYPES[dtype]).newbyteorder("<")
    try:
        size = path.stat().st_size
        if size % kind.itemsize:
            raise DataError(
                f"{path} has {size:,} bytes, no whole number of {dtype} tokens: it was cut off, or has another dtype"
            )
        return np.memmap(path, kind, "r") if size else np.empty(0, kind)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
