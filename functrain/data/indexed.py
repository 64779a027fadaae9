"""Streams of micro-batches that are found by their number: no earlier sample is read on the way."""

import dataclasses
import os
import signal
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from functrain.data.contents import content_digest, weights_digest
from functrain.data.forking import start_iterating
from functrain.data.gathering import Gather, chain_of
from functrain.data.plans import ArithmeticPlan, Plan, Task, check_reached
from functrain.data.reading import Collate, Drawing, Reader
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in, generator

FEWEST_ALLOWED, WORKERS_PER_PROCESSOR = 64, 4  # of workers: more are a slip, and starting them can take a machine down


@dataclasses.dataclass(frozen=True)
class Workers:
    """How samples are read; arguments of `torch.utils.data.DataLoader`. None of them changes a bit."""

    num_workers: int = 0
    pin_memory: bool = False
    persistent_workers: bool = False
    prefetch_factor: int | None = None
    timeout: float = 0
    worker_init_fn: Callable[[int], None] | None = None
    multiprocessing_context: Any = None

    def __post_init__(self) -> None:
        processors = os.cpu_count() or 1
        most = max(FEWEST_ALLOWED, WORKERS_PER_PROCESSOR * processors)
        if self.num_workers > most:
            raise ValueError(
                f"num_workers must be {most} or less on this machine, which has {processors} processors; got "
                f"{self.num_workers}: each worker is a process that copies the data set"
            )


class IndexedStream:
    """Micro-batches as a function of (key, epoch, position), read here or by workers.

    Args:
        plan: which examples make which micro-batch.
        dataset: map-style data set.
        collate_fn: puts samples together.
        key: the key of the run's data.
        workers: how samples are read.
        what: the loader as messages call it: "train loader", "eval_loader".
    """

    kind = "indexed"
    at_once = 1

    def __init__(self, plan: Plan, dataset: Any, collate_fn: Collate, key: int, workers: Workers, what: str):
        self.batch_size, self.ragged = plan.largest, plan.ragged
        self._plan, self._dataset, self._collate_fn, self._key = plan, dataset, collate_fn, key
        self._workers, self._what = workers, what
        self._drawing: Drawing = {}
        self._engine: DataLoader[Any] | None = None
        self._pass_number = 0
        self._open_pass: Callable[[], Generator[Any, None, None] | None] = lambda: None

    def length(self, epoch: int) -> int | None:
        """The number of micro-batches in one pass; None if only iterating tells."""
        return self._plan.length(epoch)

    def batches(self, epoch: int, start: int = 0, wanted: Callable[[int], bool] | None = None) -> Iterator[Any]:
        """One pass over the epoch from micro-batch `start`.

        Args:
            epoch, start: likewise.
            wanted: says of a micro-batch's number whether it is read; those that are not are left out.

        Raises:
            ValueError: if `start` is negative.
            DataError: if the epoch has fewer than `start` micro-batches, or none at all.
        """
        if start < 0:
            raise ValueError(f"start must not be negative, got {start}")
        length = self.length(epoch)
        if length is not None:
            check_reached(length, start, epoch, self._what)
        self.at_once = 1
        pinning = self._workers.pin_memory and torch.accelerator.is_available()
        if self._workers.num_workers or pinning:
            self._pass_number += 1
            worker_pass = self._pass_through_workers(epoch, start, self._pass_number, wanted)
            self._open_pass = weakref.ref(worker_pass)
            return worker_pass
        plan, size, reader = self._plan, self.batch_size, self._reader()
        if wanted is not None or reader.gather is None or size is None or not isinstance(plan, ArithmeticPlan):
            return map(reader, self._tasks(epoch, start, wanted))
        self.at_once = reader.gather.at_once(size)
        return reader.gather.batches(plan.order(self._key, epoch)[start * size :], size)

    def glimpse(self, epoch: int) -> Any:
        """The epoch's first micro-batch, read here beside the pass to come; None if workers read or there is none."""
        if self._workers.num_workers:
            return None  # a file that is opened here first would be shared with them
        return next(map(self._reader(), self._tasks(epoch, 0)), None)

    def unshuffled(self) -> "IndexedStream":
        """The same data in their own order, each example once; what a sampler of somebody else draws stays."""
        return IndexedStream(
            self._plan.unshuffled(), self._dataset, self._collate_fn, self._key, self._workers, self._what
        )

    def is_the_same_for(self, keys: Sequence[int]) -> bool:
        """Whether the batches are the same with each of these keys: in an order of their own, and not drawn at random.

        Example:
            >>> from functrain.data import Loader
            >>> from torch.utils.data import TensorDataset
            >>> data = TensorDataset(torch.arange(4.0))
            >>> [Loader(data, batch_size=2, shuffle=s).stream(0).is_the_same_for([1, 2]) for s in (False, True)]
            [True, False]
        """
        found = self.gathered()
        if found is None:
            return False
        first, *others = (found[1].order(key, 0) for key in keys)
        return all(torch.equal(first, other) for other in others)

    def gathered(self) -> tuple[Gather, ArithmeticPlan] | None:
        """What gathers whole batches here, and which; None where samples are read singly, or by workers."""
        workers, gather = self._workers, self._reader().gather
        if workers.num_workers or workers.pin_memory or gather is None or not isinstance(self._plan, ArithmeticPlan):
            return None
        return gather, self._plan

    @property
    def key(self) -> int:
        """Of its order."""
        return self._key

    def content_digest(self) -> str | None:
        """A fingerprint of what the data set holds, see `functrain.data.contents`; None if it cannot be told."""
        return content_digest(self._dataset, reads=not self._workers.num_workers)

    def weights_digest(self) -> str | None:
        """A fingerprint of the weights by which examples are drawn; None if they are not."""
        return None if self._plan.weights is None else weights_digest(self._plan.weights)

    def lengths_digest(self) -> str | None:
        """A fingerprint of the lengths by which examples are grouped; None if they are not."""
        return None if self._plan.lengths is None else weights_digest(self._plan.lengths)

    @property
    def sample_code(self) -> tuple[Any, Any]:
        """What makes samples and batches: the data set, behind its subsets, and the collate_fn."""
        return list(chain_of(self._dataset))[-1], self._collate_fn

    def state_dict(self) -> dict[str, Any]:
        """Empty: epoch and position say it all."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Shut down the workers; a later `batches` starts new ones."""
        self._pass_number += 1
        if (worker_pass := self._open_pass()) is not None:
            worker_pass.close()
        self._engine = None

    def _tasks(self, epoch: int, start: int, wanted: Callable[[int], bool] | None = None) -> Iterator[Task]:
        tasks = self._plan.tasks(self._key, epoch, start, self._what)
        return tasks if wanted is None else (task for task in tasks if wanted(task.position))

    def _reader(self) -> Reader:
        return Reader(self._dataset, self._collate_fn, self._key, self._plan.batched, self._drawing)

    def _pass_through_workers(
        self, epoch: int, start: int, number: int, wanted: Callable[[int], bool] | None
    ) -> Generator[Any, None, None]:
        if self._engine is None:
            self._engine = self._start_engine()
        feed = self._engine.sampler
        assert isinstance(feed, _Feed)
        feed.tasks = lambda: self._tasks(epoch, start, wanted)
        # the same base seed in every pass: persistent workers have only one, wherever the run resumed
        self._engine.generator.set_state(generator(fold_in(self._key, "workers")).get_state())
        iterator = start_iterating(self._engine)
        try:
            while number == self._pass_number:
                try:
                    batch = next(iterator)
                except StopIteration:
                    return
                yield batch
        finally:
            del iterator  # ends workers that are not persistent, also while a traceback keeps this frame
        raise DataError(
            f"this pass over epoch {epoch + 1} of the {self._what} ended when a newer one was opened or "
            "the stream was closed: workers serve one pass at a time"
        )

    def _start_engine(self) -> DataLoader[Any]:
        options = self._workers
        return DataLoader(
            _WorkerDataset(self._reader()),  # type: ignore[arg-type]
            batch_size=None,
            sampler=_Feed(),
            collate_fn=_as_it_is,
            num_workers=options.num_workers,
            pin_memory=options.pin_memory and torch.accelerator.is_available(),
            timeout=options.timeout,
            worker_init_fn=_WorkerStart(options.worker_init_fn) if options.num_workers else None,
            multiprocessing_context=options.multiprocessing_context,
            generator=torch.Generator(),
            prefetch_factor=options.prefetch_factor,
            persistent_workers=options.persistent_workers,
        )


class _Feed:
    """The sampler of the inner DataLoader: the tasks of the pass that was opened last."""

    tasks: Callable[[], Iterator[Task]]

    def __iter__(self) -> Iterator[Task]:
        for task in self.tasks():
            # a tensor would travel to a worker as shared memory, and the whole epoch's order with it
            indices = task.indices.tolist() if isinstance(task.indices, torch.Tensor) else task.indices
            yield task._replace(indices=indices)


class _WorkerDataset:
    """The data set as workers see it: indexed by tasks, its attributes those of the user's data set.

    `get_worker_info().dataset.name`, read or written in a `worker_init_fn`, reaches the user's object.
    """

    def __init__(self, reader: Reader):
        object.__setattr__(self, "_reader", reader)

    def __getitem__(self, task: Task) -> Any:
        return self._reader(task)

    def __len__(self) -> int:
        return len(self._reader.dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._reader.dataset, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_WorkerDataset, (self._reader,))


class _WorkerStart:
    """Runs first in every worker."""

    def __init__(self, worker_init_fn: Callable[[int], None] | None):
        self.worker_init_fn = worker_init_fn

    def __call__(self, worker: int) -> None:
        # Ctrl-C reaches workers too: one that ended by it would fail the training process, which is about to
        # stop in good order, in its wait for the next batch. Workers end with the training process.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.worker_init_fn is not None:
            self.worker_init_fn(worker)


def _as_it_is(batch: Any) -> Any:
    return batch
