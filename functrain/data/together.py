"""The batches of several streams over one data set, gathered at once: a batch for each member of a stack."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from functrain.data.gathering import AT_ONCE, Gather
from functrain.data.indexed import IndexedStream


def full_batches(streams: Sequence[IndexedStream], epoch: int, start: int = 0) -> Iterator[list[Tensor]] | None:
    """The full micro-batches of an epoch from number `start` on, of all streams; None where that cannot be.

    One gather for many small batches takes a fraction of the time of one for each stream and batch.

    Args:
        streams: of tensors, with one batch size, over one data set or parts of it.
        epoch, start: likewise.

    Returns:
        For each micro-batch the tensors `[N, B, ...]`, with the rows that each stream has in its own.

    Example:
        >>> from functrain.data import Loader
        >>> from torch.utils.data import TensorDataset
        >>> loader = Loader(TensorDataset(torch.arange(5)), batch_size=2, shuffle=True)
        >>> streams = [loader.stream(key) for key in (1, 2)]
        >>> [[both]] = [batch for batch in full_batches(streams, epoch=0, start=1)]
        >>> both.tolist() == [next(stream.batches(0, 1))[0].tolist() for stream in streams]
        True
    """
    found = [stream.gathered() for stream in streams]
    parts = [each for each in found if each is not None]
    size, first = streams[0].batch_size, parts[0][0] if parts else None
    if first is None or size is None or len(parts) < len(streams) or not all(_fit(first, each) for each, _ in parts):
        return None
    if any(stream.batch_size != size for stream in streams):
        return None
    orders = [plan.order(stream.key, epoch)[start * size :] for stream, (_, plan) in zip(streams, parts)]
    return _batches(first.tensors, [_rows(gather, order) for (gather, _), order in zip(parts, orders)], size)


def _batches(tensors: Sequence[Tensor], rows: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    full, members = min(len(each) for each in rows) // size, len(rows)
    taken = members * size * sum(tensor.nbytes // max(len(tensor), 1) for tensor in tensors)
    block = max(1, AT_ONCE // max(taken, 1))
    for begin in range(0, full, block):
        count = min(block, full - begin)
        chosen = [each[begin * size : (begin + count) * size].view(count, size) for each in rows]
        indices = torch.stack(chosen, 1).view(-1)
        gathered = [tensor.index_select(0, indices) for tensor in tensors]
        views = [tensor.view(count, members, size, *tensor.shape[1:]).unbind() for tensor in gathered]
        yield from map(list, zip(*views))


def _fit(first: Gather, other: Gather) -> bool:
    """Whether they gather from the same tensors."""
    return len(first.tensors) == len(other.tensors) and all(map(lambda a, b: a is b, first.tensors, other.tensors))


def _rows(gather: Gather, order: Tensor) -> Tensor:
    return order if gather.rows is None else gather.rows.index_select(0, order)
