"""Messages between the processes that train one state: many tensors in few messages.

A message costs about a millisecond on gloo, whatever its size, so tensors of one dtype travel together. A large one
travels alone, and then needs no copy beside the others.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from functrain.foundation.torch_internals import gathered
from functrain.optim.foreach import are_ours

MOST_BYTES = 64 * 2**20  # of a message, so that its buffers do not double the memory of a large model's gradients
ALONE = 2**20  # bytes from which on a copy costs as much as a message


def gather_all(tensors: Sequence[Tensor], ranks: int) -> list[Tensor]:
    """Each tensor of all processes, `[ranks, ...]`; its shape must be the same on all."""
    found: list[Tensor] = list(tensors)
    for places in _buckets(tensors):
        flat = _joined([_bytes_or_numbers(tensors[place]).reshape(-1) for place in places], dim=0)
        pieces = gathered(flat, ranks).split([tensors[place].numel() for place in places], dim=1)
        for place, piece in zip(places, pieces):
            tensor = tensors[place]
            found[place] = piece.reshape(ranks, *tensor.shape).to(tensor.dtype)
    return found


def gather_on_first(tensors: Sequence[Tensor], ranks: int) -> list[Tensor | None]:
    """As `gather_all`, on process 0; None for each on the others, which take no memory for it."""
    found: list[Tensor | None] = [None] * len(tensors)
    first = dist.get_rank() == 0
    for places in _buckets(tensors):
        flat = _joined([_bytes_or_numbers(tensors[place]).reshape(-1) for place in places], dim=0)
        every = flat.new_empty(ranks, len(flat)) if first else None
        dist.gather(flat, None if every is None else list(every.unbind()), dst=0)
        if every is None:
            continue
        for place, piece in zip(places, every.split([tensors[place].numel() for place in places], dim=1)):
            found[place] = piece.reshape(ranks, *tensors[place].shape).to(tensors[place].dtype)
    return found


def sum_all(tensors: list[Tensor]) -> list[Tensor]:
    """Each tensor added over the processes, in the order that torch takes. What the list alone holds is overwritten."""
    own = are_ours(tensors)  # before another list holds them
    found = list(tensors)
    for places in _buckets(tensors):
        flat = _joined([tensors[place].reshape(-1) for place in places], dim=0)
        if len(places) == 1 and not own:
            flat = flat.clone()
        dist.all_reduce(flat)
        for place, piece in zip(places, flat.split([tensors[place].numel() for place in places])):
            found[place] = piece.view(tensors[place].shape)
    return found


def scatter_sums(rows: Sequence[Tensor], ranks: int, add: Callable[[Sequence[Tensor]], Tensor]) -> list[Tensor]:
    """The sum over the processes of this process's row of each tensor.

    Args:
        rows: each `[ranks, ...]`: what this process has for each.
        ranks: how many there are.
        add: the sum of the processes' tensors, given in their order.

    Returns:
        For each tensor its sum `[...]`. As many bytes are sent as by a reduce-scatter, in one message, and the order of
        summation is the caller's.
    """
    found: list[Tensor] = list(rows)
    for places in _buckets(rows):
        flat = _joined([rows[place].reshape(ranks, -1) for place in places], dim=1)
        received = torch.empty_like(flat)
        dist.all_to_all_single(received, flat)
        total = add(received.unbind())
        for place, piece in zip(places, total.split([rows[place][0].numel() for place in places])):
            found[place] = piece.view(rows[place].shape[1:])
    return found


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    """The numbers of tensors that travel together: of one dtype, in order, of so many bytes."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[int] = []
        size = 0
        for place, tensor in enumerate(tensors):
            if tensor.dtype != dtype:
                continue
            if tensor.nbytes >= ALONE:
                yield [place]
                continue
            if bucket and size + tensor.nbytes > MOST_BYTES:
                yield bucket
                bucket, size = [], 0
            bucket.append(place)
            size += tensor.nbytes
        if bucket:
            yield bucket


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    return torch.cat(list(parts), dim=dim) if len(parts) > 1 else parts[0].contiguous()


def _bytes_or_numbers(tensor: Tensor) -> Tensor:
    return tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
