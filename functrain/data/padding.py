"""Ragged batches to full size with zero weights, so that a compiled step sees one shape."""

import functools
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import leaves, tree_map
from functrain.metrics.ones import ones
from functrain.objectives.batch import batch_length, refuse_objects, unpack, with_weight


def pad_batch(batch: Any, size: int) -> Any:
    """The batch with `size` examples and a weight for each.

    Missing examples are repeats of the batch's own rows, in order and from the first again, with
    weight 0: real values, so that nothing becomes NaN on the way to being ignored. BatchNorm does
    see them.

    Args:
        batch: as of `objectives.batch`; every tensor whose first dimension is the number of examples is padded.
        size: examples in a full batch.

    Returns:
        A batch with weight, floating `[size]`: 1, or the given weight, for real examples. Weights of
        1 are tensors shared between calls: do not write into them.

    Raises:
        ValueError: if the batch has more than `size` examples, or none.
        TypeError: if it is no such batch, or an object in it cannot be padded.

    Example:
        >>> pad_batch((torch.tensor([5.0, 6.0]), torch.tensor([0, 1])), 3)
        (tensor([5., 6., 5.]), tensor([0, 1, 0]), tensor([1., 1., 0.]))
    """
    if type(batch) in (tuple, list) and len(batch) == 2 and _is_full(batch, size):
        return (*batch, ones(torch.Size([size]), batch[0].device))  # the usual case, at each step
    length = batch_length(batch)
    refuse_objects(batch, "padding")
    weight = unpack(batch).weight
    if length == size:
        return batch if weight is not None else with_weight(batch, ones(torch.Size([size]), _device(batch)))
    if not 0 < length < size:
        raise ValueError(
            f"a batch of {length} examples cannot be padded to {size}: it must hold from 1 to {size}; "
            "pass the size of the largest batch"
        )
    device = _device(batch)
    real = _real_weight(length, size, device)
    rows = torch.arange(size, device=device) % length
    padded = tree_map(lambda leaf: _repeat(leaf, rows, length), batch)
    if weight is None:
        return with_weight(padded, real)
    given = unpack(padded).weight
    assert given is not None
    is_real = (real > 0).reshape(-1, *(1,) * (given.ndim - 1))
    # where, not a product: a NaN or infinite weight of a repeated row must not survive
    return with_weight(padded, torch.where(is_real, given, 0))


def _is_full(pair: Any, size: int) -> bool:
    first, second = pair
    return type(first) is Tensor and type(second) is Tensor and first.ndim > 0 and first.shape[0] == size


def _repeat(leaf: Any, rows: Tensor, length: int) -> Any:
    if isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == length:
        return leaf.index_select(0, rows)
    return leaf


def _device(batch: Any) -> torch.device:
    return next(leaf.device for leaf in leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim)


@functools.lru_cache(maxsize=64)
def _real_weight(real: int, size: int, device: torch.device) -> Tensor:
    """1 for the first `real` of `size` examples, 0 for the others; made once."""
    # the cache outlives the call: a tensor made under a caller's inference mode could not be trained with
    with torch.inference_mode(False):
        return (torch.arange(size, device=device) < real).to(torch.float32)
