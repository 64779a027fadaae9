"""What an evaluation keeps of each example, in files: it needs little memory, and a killed one goes on."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation.array_files import Array, ArrayFile, ColumnFile
from functrain.foundation.errors import DataError, FunctrainError
from functrain.foundation.scratch import ScratchFolder

PROGRESS = "progress.json"
COMMIT_SECONDS = 1.0  # between two commits: a killed evaluation computes so much again
_OURS = (PROGRESS, f".{PROGRESS}.tmp", "*.rows", "*.made")
_PART = 1 << 20  # numbers of the widest array that are read at a time


class BatchRows(NamedTuple):
    """What is kept of a batch.

    Attributes:
        arrays: name -> an array with a row for each example.
        sums: name -> an array that is added up over all batches.
    """

    arrays: Mapping[str, Array]
    sums: Mapping[str, NDArray[np.float64]] = {}


class KeptRows:
    """Arrays with a row for each example, which are appended batch by batch.

    They are committed once in a second. A process that opens the folder of a killed one has the batches of the last
    commit. Rows that are damaged, or that are of something else, are removed.

    Args:
        folder: where the files are; None: a temporary folder, which is removed with this object.
        about: what the rows are of.

    Attributes:
        folder: likewise.
        kind: a word that is kept with them.
        batches: how many were appended.
        sums: of all batches.

    Example:
        >>> rows = KeptRows()
        >>> rows.append(BatchRows({"logits": np.zeros((4, 3))}))
        >>> rows.append(BatchRows({"logits": np.ones((2, 3))}))
        >>> len(rows), rows.batches, [logits.shape for (logits,) in rows.parts("logits")]
        (6, 2, [(6, 3)])
    """

    def __init__(self, folder: Path | None = None, about: Mapping[str, str] | None = None) -> None:
        self._scratch = ScratchFolder() if folder is None else None
        self.folder = self._scratch.path if self._scratch is not None else Path(str(folder))
        self._about = dict(about or {})
        if not self._restored():
            self.clear()
        self._committed = time.monotonic()

    def __len__(self) -> int:
        """How many examples there are."""
        return next(iter(self._files.values())).rows if self._files else 0

    def clear(self) -> None:
        """Remove all rows.

        Raises:
            FunctrainError: if the folder cannot be written to.
        """
        self.kind: str | None = None
        self.batches, self._first = 0, 0
        self.sums: dict[str, NDArray[np.float64]] = {}
        self._files: dict[str, ArrayFile] = {}
        try:
            self._remove_files()
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FunctrainError(f"{self.folder} cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Remove the rows, and the folder if it holds nothing else."""
        with suppress(OSError):
            self._remove_files()
            self.folder.rmdir()

    def _remove_files(self) -> None:
        for pattern in _OURS:
            for path in self.folder.glob(pattern):
                path.unlink()

    def append(self, batch: BatchRows) -> None:
        """Add a batch.

        Raises:
            DataError: if its rows have another shape than those before.
            FunctrainError: if the files cannot be written, as on a full disk.
        """
        for name, values in batch.arrays.items():
            if not self.batches:
                self._files[name] = ArrayFile(self.folder / f"{name}.rows", values.dtype, values.shape[1:])
            file = self._files[name]
            if values.shape[1:] != file.row:
                raise DataError(
                    f"all batches must have {name} of one shape: got {list(values.shape[1:])} for an example after "
                    f"{list(file.row)}"
                )
            file.append(values)
        for name, values in batch.sums.items():
            self.sums[name] = self.sums[name] + values if name in self.sums else values
        self._first = self._first or len(self)
        self.batches += 1
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.commit()

    def begins_with(self, batch: BatchRows) -> bool:
        """Whether a batch has the bits of the first one that was kept."""
        return batch.arrays.keys() == self._files.keys() and all(
            values.astype(file.dtype).tobytes() == file.read(0, self._first).tobytes()
            for (name, values) in batch.arrays.items()
            for file in [self._files[name]]
        )

    def parts(self, *names: str) -> Iterator[tuple[Array, ...]]:
        """The rows of some arrays, a part at a time. Its size depends on the arrays' shapes alone."""
        files = [self._files[name] for name in names]
        widest = max(int(np.prod(file.row)) for file in self._files.values())
        size = max(1, _PART // max(widest, 1))
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield tuple(file.read(start, stop) for file in files)

    def array(self, name: str) -> Array:
        """All rows of an array, read-only, in a file."""
        return self._files[name].array()

    def row_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a row of an array."""
        return self._files[name].row

    def new_file(self, name: str, dtype: Any, row: Sequence[int] = ()) -> ArrayFile:
        """An empty file for an array that is computed from the rows."""
        path = self.folder / f"{name}.made"
        path.unlink(missing_ok=True)
        return ArrayFile(path, np.dtype(dtype), tuple(row))

    def new_columns(self, name: str, dtype: Any, rows: int, columns: int) -> ColumnFile:
        """A file for an array that is computed from the rows and read by columns."""
        return ColumnFile(self.folder / f"{name}.made", np.dtype(dtype), rows, columns)

    def commit(self) -> None:
        """From here a killed process's successor goes on.

        Raises:
            FunctrainError: if the files cannot be written.
        """
        files = {
            name: {"dtype": file.dtype.str, "row": file.row, "rows": file.rows, "crc": file.crc}
            for name, file in self._files.items()
        }
        sums = {name: values.tolist() for name, values in self.sums.items()}
        content = {"about": self._about, "kind": self.kind, "batches": self.batches, "first": self._first}
        temporary = self.folder / f".{PROGRESS}.tmp"
        try:
            temporary.write_text(json.dumps({**content, "files": files, "sums": sums}), encoding="utf-8")
            os.replace(temporary, self.folder / PROGRESS)
        except OSError as error:
            raise FunctrainError(f"{self.folder / PROGRESS} cannot be written: {error.strerror}") from error
        self._committed = time.monotonic()

    def _restored(self) -> bool:
        """Whether the folder holds rows of the same, undamaged."""
        try:
            kept = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            if kept["about"] != self._about:
                return False
            self.kind, self.batches, self._first = kept["kind"], int(kept["batches"]), int(kept["first"])
            self.sums = {name: np.asarray(values, float) for name, values in kept["sums"].items()}
            self._files = {
                name: ArrayFile(
                    self.folder / f"{name}.rows", np.dtype(each["dtype"]), tuple(each["row"]), each["rows"], each["crc"]
                )
                for name, each in kept["files"].items()
            }
            return bool(self._files) and all(file.restored() for file in self._files.values())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return False


def as_array(tensor: Tensor) -> Array:
    """A tensor's numbers; those of half precision in float32, which holds each of them."""
    narrow = tensor.is_floating_point() and tensor.itemsize < 4
    return (tensor.to(torch.float32) if narrow else tensor).detach().cpu().numpy()
