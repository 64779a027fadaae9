"""Rows of a tensor that several processes keep together, sent to process 0 in turn."""

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from functrain.foundation.pieces import Piece, rows_of_process

T = TypeVar("T")
MOST_BYTES = 4 * 2**20  # of a message: process 0 has two, beside its own rows


def rows_on_first(piece: Piece, device: torch.device) -> Iterator[Tensor]:
    """The rows of all processes in their order, some at a time, on process 0; nothing on the others, which send them.

    Args:
        piece: this process's.
        device: where the processes send from.

    Returns:
        Tensors, each of which the next one overwrites.
    """
    buffer: Tensor | None = None
    for rank in range(piece.ranks):
        for start, end in rows_of_process(piece, rank, MOST_BYTES):
            if rank == piece.rank == 0:
                yield piece.rows[start:end]
            elif rank == piece.rank:
                dist.send(_sendable(piece.rows[start:end].to(device)), 0)
            elif piece.rank == 0:
                if buffer is None:
                    buffer = piece.rows.new_empty(end - start, *piece.shape[1:], device=device)
                received = buffer[: end - start]
                dist.recv(_sendable(received), rank)
                yield received


def told_by_first(value: T) -> T:
    """What process 0 gives, on all of them: anything that can be pickled."""
    held: list[Any] = [value]
    dist.broadcast_object_list(held, 0)
    found: T = held[0]
    return found


def _sendable(rows: Tensor) -> Tensor:
    """The bytes of rows, which travel whatever their dtype is."""
    return rows.contiguous().view(torch.uint8)
