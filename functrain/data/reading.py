"""Reading one micro-batch: samples, their seeds, collation. Runs in the training process or in a worker."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate, default_convert, get_worker_info

from functrain.data.collating import collated
from functrain.data.datasets import Wrapper
from functrain.data.gathering import chain_of, gather_from, stores_samples
from functrain.data.plans import Task, name_of
from functrain.data.randomness import KINDS, Randomness
from functrain.data.transforms.applying import TransformedBatch
from functrain.foundation.keys import fold_in

Collate = Callable[[Any], Any]

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
        self.stores_samples = stores_samples(source)
        self.collates_plainly = collate_fn in (default_collate, default_convert)
        self.randomness = Randomness(*owners_of(dataset))
        # Subset has __getitems__ always; only its source tells whether samples come singly or not
        self.reads_batches = callable(getattr(source, "__getitems__", None))
        gathers = batched and self.stores_samples
        self.gather = gather_from(dataset) if gathers and collate_fn is default_collate else None
        self.transform, self.gather_to_transform = None, None
        if gathers and isinstance(collate_fn, TransformedBatch) and collate_fn.collates_plainly:
            self.transform, self.gather_to_transform = collate_fn.of_collated, gather_from(dataset)
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
            collate = self._to_collate(task)  # anew each time: a collate_fn may change the samples
            modules = len(sys.modules)
            batch, further = self._attempt("collate", partial(self._collated, task, collate))
            imported = len(sys.modules) != modules
            if not further and not (imported and again):
                return batch
            again = again and not imported

    def _to_collate(self, task: Task) -> Callable[[], Any]:
        """What collates the samples; their tensors, if there is only a transform of the batch to do."""
        if self.gather_to_transform is not None and (batch := self.gather_to_transform(task.indices)) is not None:
            assert self.transform is not None
            return partial(self.transform, batch)
        return partial(self.collate_fn, self._read_samples(task))

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

    def _collated(self, task: Task, collate: Callable[[], Any], seeds: frozenset[str]) -> Any:
        self.randomness.seed(fold_in(self.key, "batch", task.epoch, task.position), seeds)
        return collate()

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


def owners_of(dataset: Any) -> Iterator[Any]:
    """A data set and all that it reads from: the owners of the generators that its samples may draw from."""
    *subsets, source = chain_of(dataset)
    yield from subsets
    yield source
    if isinstance(source, Wrapper):
        yield from owners_of(source.dataset)


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
