"""Tensors that several processes keep together, as one of them sees them. Imports torch only."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Piece:
    """A process's rows of a tensor; a leaf in the place of the whole tensor.

    Each process has as many rows. Those of process 0 come first, and the last ones may be filled up.

    Attributes:
        rows: `[count, ...]`, with what fills them up.
        length: rows of the whole tensor.
        rank, ranks: the number of this process, and how many there are.

    Example:
        >>> piece = Piece(torch.tensor([[4.0], [0.0]]), length=3, rank=1, ranks=2)
        >>> piece.shape, piece.first, piece.own
        ((3, 1), 2, tensor([[4.]]))
    """

    rows: Tensor
    length: int
    rank: int
    ranks: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole tensor."""
        return self.length, *self.rows.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype."""
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.rows.device

    @property
    def nbytes(self) -> int:
        """The bytes of the whole tensor."""
        return self.length * self.row_nbytes

    @property
    def row_nbytes(self) -> int:
        """The bytes of a row."""
        return self.rows.nbytes // len(self.rows)

    @property
    def first(self) -> int:
        """The number of the first row."""
        return min(self.rank * len(self.rows), self.length)

    @property
    def own(self) -> Tensor:
        """The rows without what fills them up."""
        return self.rows[: self.counts[self.rank]]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many rows each process has, without what fills them up."""
        size = len(self.rows)
        return tuple(max(0, min(self.length - rank * size, size)) for rank in range(self.ranks))

    def with_rows(self, rows: Tensor) -> "Piece":
        """The same piece with other rows."""
        return dataclasses.replace(self, rows=rows)


def rows_of_process(piece: Piece, rank: int, most_nbytes: int) -> Iterable[tuple[int, int]]:
    """The rows of a process in runs of at most so many bytes, or of one row: the first one, and the one after the last.

    They count from the process's own first row.

    Example:
        >>> piece = Piece(torch.zeros(3, 2), length=5, rank=0, ranks=2)
        >>> list(rows_of_process(piece, 0, 16)), list(rows_of_process(piece, 1, 16))
        ([(0, 2), (2, 3)], [(0, 2)])
    """
    step = max(1, most_nbytes // max(1, piece.row_nbytes))
    count = piece.counts[rank]
    return ((start, min(start + step, count)) for start in range(0, count, step))
