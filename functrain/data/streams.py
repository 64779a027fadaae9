"""Any loader as a stream of micro-batches that the training loop can open anywhere.

The law: the content of micro-batch p of epoch e is a function of (key, e, p); starting at p reads no earlier
sample; workers, prefetching and pinned memory change no bit; the caller's random states stay as they are.
Loaders that can only be iterated keep as much of it as they can.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from functrain.data.indexed import IndexedStream, Workers
from functrain.data.iterables import IterableStream, StatefulStream
from functrain.data.loader import Loader
from functrain.data.plans import loader_name, plan_of
from functrain.data.poisson import PoissonLoader


@runtime_checkable
class Stream(Protocol):
    """What the training loop reads from.

    `batch_size` is the size of full micro-batches where it is known (of an "indexed" stream: of the largest, since a
    data set may have fewer examples), `ragged` whether some may be smaller, `kind` one of "indexed",
    "iterable" and "stateful". `at_once` is how many micro-batches the pass opened last reads together: to draw so many
    together reads none too early.
    """

    batch_size: int | None
    ragged: bool
    kind: str
    at_once: int

    def length(self, epoch: int) -> int | None:
        """The number of micro-batches in one pass over the epoch; None if only iterating tells."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """One pass over the epoch from micro-batch `start`."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold beside epoch and position, as of the batch handed out last."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it; the pass to open next is the one that it was saved in, at the same position."""

    def close(self) -> None:
        """Shut down workers."""


def as_stream(loader: Any, key: int, *, what: str = "train") -> Stream:
    """Make a stream of a loader.

    * functrain's `Loader` and `PoissonLoader`, and a map-style `torch.utils.data.DataLoader`, are re-driven: the order
      is computed from the key, every read is seeded, any position is reached without reading. A DataLoader keeps its
      data set, collate_fn, workers and memory options; its `generator` is not used. Random and sequential samplers
      are replaced, any other sampler is iterated with its generators seeded for the epoch.
    * A loader with `state_dict` and `load_state_dict` is asked for its own position.
    * A DataLoader of an IterableDataset, one that overrides `__iter__`, and any other iterable is iterated,
      and fast-forwarded on resume with a `DataWarning`.

    Args:
        loader: the loader.
        key: the key of the run's data, 0 <= key < 2**64.
        what: name of the loader in messages: "train", or that of an argument, "eval_loader".

    Raises:
        TypeError: if `loader` is no loader.
        ValueError: if a DataLoader has in_order=False.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> stream = as_stream(DataLoader(TensorDataset(torch.arange(6)), batch_size=2, shuffle=True), key=0)
        >>> stream.kind, stream.length(0), stream.batch_size
        ('indexed', 3, 2)
        >>> first = [rows.tolist() for [rows] in stream.batches(epoch=0)]
        >>> first[1:] == [rows.tolist() for [rows] in stream.batches(epoch=0, start=1)]
        True
    """
    if isinstance(loader, (Loader, PoissonLoader)):
        return loader.stream(key, what=what)
    if isinstance(loader, Stream):
        return loader
    what = loader_name(what)
    _refuse_non_loaders(loader, what)
    if callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None)):
        return StatefulStream(loader, key, what)
    # a subclass with an __iter__ of its own (which moves batches to a device, for example) would lose it when re-driven
    plain = isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__
    if plain and not isinstance(loader.dataset, IterableDataset):
        return _redriven(loader, key, what)
    return IterableStream(loader, key, what)


def chosen_batches(stream: Stream, epoch: int, start: int, wanted: Callable[[int], bool]) -> Iterator[Any]:
    """The micro-batches of a pass from `start` whose numbers are wanted. An indexed stream reads no others.

    Example:
        >>> list(chosen_batches(as_stream([5, 6, 7, 8], key=0), 0, 0, lambda number: number % 2 == 1))
        [6, 8]
    """
    if isinstance(stream, IndexedStream):
        return stream.batches(epoch, start, wanted)
    return (batch for number, batch in enumerate(stream.batches(epoch, start), start) if wanted(number))


def glimpse(stream: Stream, epoch: int) -> Any:
    """The first micro-batch of an epoch, where the pass to come does not notice that it was read; else None.

    Example:
        >>> glimpse(as_stream([7, 8], key=0), epoch=0), glimpse(as_stream(iter([7, 8]), key=0), epoch=0)
        (7, None)
    """
    return stream.glimpse(epoch) if isinstance(stream, (IndexedStream, IterableStream)) else None


def _redriven(loader: DataLoader[Any], key: int, what: str) -> IndexedStream:
    if not getattr(loader, "in_order", True):
        raise ValueError(
            f"the {what} (a DataLoader) has in_order=False, so the order of its batches depends on timing and "
            "no run could be repeated or resumed. Make it with in_order=True"
        )
    workers = Workers(
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        persistent_workers=loader.persistent_workers,
        prefetch_factor=loader.prefetch_factor,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
    return IndexedStream(plan_of(loader), loader.dataset, loader.collate_fn, key, workers, what)


def _refuse_non_loaders(loader: Any, what: str) -> None:
    """Raise TypeError for what users pass by mistake, saying what to pass instead."""
    given = f"the {what} must be an iterable of batches, got {type(loader).__name__}"
    advice = "pass functrain's Loader(dataset, batch_size=...) or a torch.utils.data.DataLoader"
    if isinstance(loader, IterableDataset):
        raise TypeError(f"{given}, a data set that yields samples; pass DataLoader(dataset, batch_size=...)")
    if isinstance(loader, Dataset):
        raise TypeError(f"{given}, a data set; {advice} around it")
    bare = isinstance(loader, (Tensor, np.ndarray))
    if bare or (isinstance(loader, (tuple, list)) and any(isinstance(x, (Tensor, np.ndarray)) for x in loader)):
        raise TypeError(f"{given} of examples; pass functrain's Loader(Arrays(inputs, targets), batch_size=...)")
    if isinstance(loader, (str, bytes, Mapping)) or not isinstance(loader, Iterable):
        raise TypeError(f"{given}; {advice}")
