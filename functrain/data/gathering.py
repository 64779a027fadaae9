"""Whole batches out of tensors: what a data set that stores its samples allows."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from functrain.data.datasets import Arrays

# Bytes of small batches that are prepared together: they stay in a processor's second cache beside a small network.
AT_ONCE = 256 * 1024
ALIGNMENT = 64  # bytes; torch's allocator on the CPU. Sums of MKL's depend on it.


@dataclasses.dataclass(frozen=True)
class Gather:
    """Collects a whole batch from tensors at once, about 15 times as fast as sample by sample.

    It gives the bits and containers of `default_collate([dataset[i] for i in indices])`, or None for
    indices that it does not understand.
    """

    tensors: tuple[Tensor, ...]
    rows: Tensor | None  # which rows of the tensors the examples are; None: all of them

    def __call__(self, indices: Any) -> list[Tensor] | None:
        """The batch, or None."""
        rows = indices if isinstance(indices, Tensor) else _as_rows(indices)
        if rows is None:
            return None
        if self.rows is not None:
            rows = self.rows.index_select(0, rows)
        return [tensor.index_select(0, rows) for tensor in self.tensors]

    def at_once(self, batch_size: int) -> int:
        """How many batches of so many examples to gather together: that of small ones takes hardly longer than of one.

        1 where a batch would then lie in memory otherwise than one that is gathered alone.
        """
        sizes = [batch_size * (tensor.nbytes // max(len(tensor), 1)) for tensor in self.tensors]
        if any(size % ALIGNMENT for size in sizes):
            return 1
        return max(1, AT_ONCE // max(sum(sizes), 1))

    def batches(self, order: Tensor, batch_size: int) -> Iterator[list[Tensor]]:
        """The batches of the examples in this order, the last one maybe smaller: views of what was gathered at once."""
        block = batch_size * self.at_once(batch_size)
        for first in range(0, len(order), block):
            gathered = self(order[first : first + block])
            assert gathered is not None
            yield from map(list, zip(*(tensor.split(batch_size) for tensor in gathered)))


def gather_from(dataset: Any) -> Gather | None:
    """The `Gather` of a data set of tensors or of a subset of one; None where samples must be read singly."""
    *subsets, source = chain_of(dataset)
    if not stores_samples(source) or not all(map(_is_plain, source.tensors)):
        return None
    rows: Tensor | None = None
    for subset in subsets:
        own = _as_rows(subset.indices)
        if own is None:
            return None
        rows = own if rows is None else own[rows]
    return Gather(source.tensors, rows)


def chain_of(dataset: Any) -> Iterator[Any]:
    """A data set and, behind subsets, the ones that it is taken from."""
    yield dataset
    while type(dataset) is Subset:
        dataset = dataset.dataset
        yield dataset


def stores_samples(source: Any) -> bool:
    """Whether reading a sample is known to draw nothing at random."""
    return type(source) is TensorDataset or (type(source) is Arrays and source.transform is None)


def _is_plain(tensor: Tensor) -> bool:
    """Whether `index_select` gives what stacking rows gives: same bits, strides and no gradient."""
    return (
        type(tensor) is Tensor
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.requires_grad or tensor.is_quantized)
    )


def _as_rows(indices: Sequence[Any] | Tensor) -> Tensor | None:
    """Indices as int64 `[B]`, or None if they are anything but non-negative integers."""
    try:
        rows = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError):
        return None
    return rows if rows.dtype is torch.int64 and rows.ndim == 1 and int(rows.min()) >= 0 else None
