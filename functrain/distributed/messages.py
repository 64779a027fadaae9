"""Messages between the processes that train one state: many tensors in few messages.

A message costs a fixed time for each process that it passes, so tensors of one dtype travel together in buckets: one
copy into a bucket, and one out of it. A tensor whose copies would take longer than a message travels alone. What is
worth a message grows with the number of processes, and so do both limits.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from functrain.distributed.mesh import Group
from functrain.foundation.torch_internals import gathered
from functrain.optim.foreach import are_ours

ALONE = 2**20  # bytes, for each process, from which on copies take longer than a message (gloo, 2 and 4 processes)
BUCKET = 24 * 2**20  # bytes: of more than 32 MiB a CPU's allocator makes new memory each time, with page faults
BUCKET_OF_A_RANK = 2**18  # bytes of a bucket for each process: half of what 50 GB/s send in a latency of 10 us
LARGEST_BUCKET = 2**28  # bytes, for memory: a bucket is there up to three times, as it is sent, received and added


def bucket_bytes(ranks: int) -> int:
    """The most bytes of a bucket, counted on the side where it has the tensors of all processes.

    Example:
        >>> [bucket_bytes(ranks) >> 20 for ranks in (2, 64, 256, 1024, 4096)]
        [24, 24, 64, 256, 256]
    """
    return min(max(BUCKET, BUCKET_OF_A_RANK * ranks), LARGEST_BUCKET)


def gather_all(tensors: Sequence[Tensor], group: Group) -> list[Tensor]:
    """Each tensor of all processes of a group, `[size, ...]`; its shape must be the same on all."""
    found: list[Tensor] = list(tensors)
    for places in buckets(tensors, group.size, times=group.size):
        flat = _joined([_bytes_or_numbers(tensors[place]).reshape(-1) for place in places], dim=0)
        pieces = gathered(flat, group.size, group.handle).split([tensors[place].numel() for place in places], dim=1)
        for place, piece in zip(places, pieces):
            tensor = tensors[place]
            found[place] = piece.reshape(group.size, *tensor.shape).to(tensor.dtype)
    return found


def gather_on_first(tensors: Sequence[Tensor], group: Group) -> list[Tensor | None]:
    """As `gather_all`, on the group's first process; None for each on the others, which take no memory for it."""
    found: list[Tensor | None] = [None] * len(tensors)
    first = group.rank == 0
    for places in buckets(tensors, group.size, times=group.size):
        flat = _joined([_bytes_or_numbers(tensors[place]).reshape(-1) for place in places], dim=0)
        every = flat.new_empty(group.size, len(flat)) if first else None
        dist.gather(flat, None if every is None else list(every.unbind()), dst=group.first, group=group.handle)
        if every is None:
            continue
        for place, piece in zip(places, every.split([tensors[place].numel() for place in places], dim=1)):
            found[place] = piece.reshape(group.size, *tensors[place].shape).to(tensors[place].dtype)
    return found


def sum_all(tensors: list[Tensor], group: Group) -> list[Tensor]:
    """Each tensor added over a group, in the order that torch takes. What the list alone holds is overwritten."""
    own = are_ours(tensors)  # before another list holds them
    found = list(tensors)
    for places in buckets(tensors, group.size):
        flat = _joined([tensors[place].reshape(-1) for place in places], dim=0)
        if len(places) == 1 and not own:
            flat = flat.clone()
        dist.all_reduce(flat, group=group.handle)
        for place, piece in zip(places, flat.split([tensors[place].numel() for place in places])):
            found[place] = piece.view(tensors[place].shape)
    return found


def scatter_sums(rows: list[Tensor], group: Group, add: Callable[[Sequence[Tensor]], Tensor]) -> list[Tensor]:
    """The sum over the processes of a group of this process's row of each tensor.

    Args:
        rows: each `[size, ...]`: what this process has for each. The list is emptied, for the tensors' memory.
        group: the processes.
        add: the sum of the processes' tensors, given in their order.

    Returns:
        For each tensor its sum `[...]`. As many bytes are sent as by a reduce-scatter, in one message, and the order of
        summation is the caller's.
    """
    shapes = [row.shape[1:] for row in rows]
    found: list[Any] = [None] * len(rows)
    waiting = dict(enumerate(rows))
    together = list(buckets(rows, group.size))
    rows.clear()
    for places in together:
        flat = _joined([waiting.pop(place).reshape(group.size, -1) for place in places], dim=1)
        received = torch.empty_like(flat)
        dist.all_to_all_single(received, flat, group=group.handle)
        del flat
        total = add(received.unbind())
        for place, piece in zip(places, total.split([shapes[place].numel() for place in places])):
            found[place] = piece.view(shapes[place])
    return found


def sum_whole(tensors: Sequence[Tensor], group: Group, add: Callable[[Sequence[Tensor]], Tensor]) -> list[Tensor]:
    """Each tensor added over a group in the caller's order: each process adds a part of it, and gathers the others'."""
    shapes = [tensor.shape for tensor in tensors]
    sums = scatter_sums([in_rows(tensor, group.size) for tensor in tensors], group, add)
    return [joined_rows(rows, shape) for shape, rows in zip(shapes, gather_all(sums, group))]


def in_rows(tensor: Tensor, count: int) -> Tensor:
    """A tensor's elements in so many rows of equal length, filled up with zeros.

    Example:
        >>> in_rows(torch.arange(3), 2)
        tensor([[0, 1],
                [2, 0]])
    """
    flat = tensor.reshape(-1)
    missing = -len(flat) % count
    return torch.nn.functional.pad(flat, (0, missing)).view(count, -1) if missing else flat.view(count, -1)


def joined_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """The tensor of `in_rows`, in its shape."""
    return rows.reshape(-1)[: shape.numel()].view(shape)


def buckets(tensors: Sequence[Tensor], ranks: int, *, times: int = 1, alone: bool = True) -> Iterator[list[int]]:
    """The numbers of the tensors that travel together, which have one dtype, in order.

    Args:
        tensors: what each process has.
        ranks: how many processes there are.
        times: how often a tensor's bytes are in a message where it has the most.
        alone: whether a tensor whose copies take longer than a message travels alone; else one larger than a bucket.

    Example:
        >>> list(buckets([torch.zeros(2), torch.ones(3).bool(), torch.zeros(2**20), torch.zeros(1)], ranks=2))
        [[2], [0, 3], [1]]
        >>> list(buckets([torch.zeros(2**20)] * 5, ranks=8))
        [[0, 1, 2, 3, 4]]
    """
    most = bucket_bytes(ranks)
    large = min(ALONE * ranks, most) if alone else most
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[int] = []
        size = 0
        for place, tensor in enumerate(tensors):
            nbytes = tensor.nbytes * times
            if tensor.dtype != dtype:
                continue
            if nbytes >= large:
                yield [place]
                continue
            if bucket and size + nbytes > most:
                yield bucket
                bucket, size = [], 0
            bucket.append(place)
            size += nbytes
        if bucket:
            yield bucket


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(parts), dim=dim) if len(parts) > 1 else parts[0].contiguous()


def _bytes_or_numbers(tensor: Tensor) -> Tensor:
    return tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
