"""Reading one micro-batch: samples, their seeds, collation. Runs in the training process or in a worker."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset, default_collate, default_convert, get_worker_info

from functrain.data.collating import collated
from functrain.data.datasets import Arrays, Wrapper
from functrain.data.plans import Task, name_of
from functrain.data.randomness import KINDS, Randomness
from functrain.foundation.keys import fold_in

Collate = Callable[[Any], Any]

# Bytes of small batches that are prepared together: they stay in a processor's second cache beside a small network.
AT_ONCE = 256 * 1024
ALIGNMENT = 64  # bytes; torch's allocator on the CPU. Sums of MKL's depend on it.


# "samples" and "collate" -> the global generators that they are known to draw from; without what was not run yet.
Drawing = dict[str, frozenset[str]]


class Reader:
    """A function from a task to its micro-batch, of the key and the task alone.

    Each sample and each batch has a seed of its own. To seed takes longer than to see what was drawn from, so only
    those generators are seeded that a sample has drawn from before. Where one draws from a further generator, the batch
    is read once more.

    Args:
        dataset: map-style data set.
        collate_fn: puts samples together.
        key: the key of the run's data.
        batched: whether a task is a batch of samples; else it is one sample, as it comes.
        drawing: what earlier readers of this data set found.
    """

    def __init__(self, dataset: Any, collate_fn: Collate, key: int, batched: bool, drawing: Drawing | None = None):
        self.dataset, self.collate_fn, self.key, self.batched = dataset, collate_fn, key, batched
        source = list(chain_of(dataset))[-1]
        self.stores_samples = _stores_samples(source)
        self.collates_plainly = collate_fn in (default_collate, default_convert)
        self.randomness = Randomness(*owners_of(dataset))
        # Subset has __getitems__ always; only its source tells whether samples come singly or not
        self.reads_batches = callable(getattr(source, "__getitems__", None))
        gathers = batched and self.stores_samples and collate_fn is default_collate
        self.gather = gather_from(dataset) if gathers else None
        self.drawing: Drawing = {} if drawing is None else drawing

    def __call__(self, task: Task) -> Any:
        """Read the micro-batch."""
        if self.gather is not None and (batch := self.gather(task.indices)) is not None:
            return batch
        if self.stores_samples and self.collates_plainly:
            return self._plainly_collated(self._samples(task, frozenset()))
        # a worker's generators are nobody's: putting their states aside pays only where training runs
        aside = self.randomness.preserved() if get_worker_info() is None else nullcontext()
        with aside, one_thread():
            return self._read(task)

    def _plainly_collated(self, samples: Any) -> Any:
        return collated(samples) if self.collate_fn is default_collate else self.collate_fn(samples)

    def _read(self, task: Task) -> Any:
        if self.collates_plainly:
            return self._plainly_collated(self._read_samples(task))
        again = True  # a collate_fn that imports is called once more, as in Randomness.read
        while True:
            samples = self._read_samples(task)  # anew each time: a collate_fn may change them
            modules = len(sys.modules)
            batch, further = self._attempt("collate", partial(self._collated, task, samples))
            imported = len(sys.modules) != modules
            if not further and not (imported and again):
                return batch
            again = again and not imported

    def _read_samples(self, task: Task) -> Any:
        if self.stores_samples:
            return self._samples(task, frozenset())
        further = True
        while further:
            samples, further = self._attempt("samples", partial(self._samples, task))
        return samples

    def _attempt(self, part: str, reading: Callable[[frozenset[str]], Any]) -> tuple[Any, bool]:
        """What `reading` gives with the generators seeded that it is known to draw from. True: it drew from another."""
        known = self.drawing.get(part, frozenset())
        if len(known) == len(KINDS):
            return reading(known), False
        self.randomness.watch()
        value = None
        try:
            value = reading(known)
        except Exception:
            if self.randomness.drawn() <= known:
                raise
            # A sample that drew from another generator is read again with its own seed, with which it may not fail.
        further = self.randomness.drawn() - known
        self.drawing[part] = known | further
        return value, bool(further)

    def _collated(self, task: Task, samples: Any, seeds: frozenset[str]) -> Any:
        self.randomness.seed(fold_in(self.key, "batch", task.epoch, task.position), seeds)
        return self.collate_fn(samples)

    def _samples(self, task: Task, seeds: frozenset[str]) -> Any:
        indices = task.indices.tolist() if isinstance(task.indices, Tensor) and self.batched else task.indices
        seeded = bool(seeds or self.randomness.own) and not self.stores_samples
        if self.batched and self.reads_batches:
            if not seeded:
                return self.dataset.__getitems__(indices)
            key = fold_in(self.key, "samples", task.epoch, task.position)
            return self.randomness.read(key, lambda: self.dataset.__getitems__(indices), seeds)
        read = self._sample
        if seeded:
            read = partial(self._seeded_sample, fold_in(self.key, "sample", task.epoch), seeds)
        if not self.batched:
            return read(task, 0, indices)
        samples, is_first = [], not self.stores_samples and "samples" not in self.drawing
        for row, index in enumerate(indices):
            samples.append(read(task, row, index))
            if row == 0 and is_first and self.randomness.drawn():
                break  # so that not the whole batch is read twice
        return samples

    def _seeded_sample(self, epoch_key: int, seeds: frozenset[str], task: Task, row: int, index: Any) -> Any:
        repeat = (task.repeats[row],) if task.repeats is not None and task.repeats[row] else ()
        key = fold_in(epoch_key, name_of(index), *repeat)
        return self.randomness.read(key, partial(self._sample, task, row, index), seeds)

    def _sample(self, task: Task, _row: int, index: Any) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            error.add_note(
                f"while reading sample {index!r} for micro-batch {task.position + 1} of epoch {task.epoch + 1}"
            )
            raise


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
    if not _stores_samples(source) or not all(map(_is_plain, source.tensors)):
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


def owners_of(dataset: Any) -> Iterator[Any]:
    """A data set and all that it reads from: the owners of the generators that its samples may draw from."""
    *subsets, source = chain_of(dataset)
    yield from subsets
    yield source
    if isinstance(source, Wrapper):
        yield from owners_of(source.dataset)


def _stores_samples(source: Any) -> bool:
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, as workers do: sums over many elements round differently with more."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
