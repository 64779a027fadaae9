"""Which examples make which micro-batch of an epoch. Reads no data."""

import dataclasses
import itertools
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, WeightedRandomSampler

from functrain.data.order import batch_count, batches_from, epoch_order
from functrain.data.randomness import Randomness
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in

# Index batches that are drawn from a foreign sampler at a time: putting NumPy's global state aside and back
# takes about 0.1 ms, too much for each batch. Part of the order's definition: changing it changes runs.
DRAWN_AT_ONCE = 64


class Task(NamedTuple):
    """One micro-batch to be read."""

    epoch: int
    position: int
    indices: Any  # int64 [B], a list of whatever a sampler yields, or one index where batching is off
    repeats: tuple[int, ...] | None  # how often each index occurred before in this epoch; None: never


class Plan(Protocol):
    """The micro-batches of any epoch."""

    @property
    def batch_size(self) -> int | None:
        """Examples in a full micro-batch, where that is known."""

    @property
    def largest(self) -> int | None:
        """Examples in the largest micro-batch, as far as that is known: a data set may have fewer than `batch_size`."""

    @property
    def batched(self) -> bool:
        """Whether a task is a batch of samples, or one sample that is not collated."""

    @property
    def ragged(self) -> bool:
        """Whether a micro-batch may have another number of examples than the others."""

    @property
    def weights(self) -> Tensor | None:
        """Of the examples, where they are drawn by weight."""

    @property
    def lengths(self) -> Tensor | None:
        """Of the examples, where those of a batch are of similar length."""

    def length(self, epoch: int) -> int | None:
        """The number of micro-batches, or None where only iterating tells."""

    def tasks(self, key: int, epoch: int, start: int, what: str) -> Iterator[Task]:
        """The epoch's micro-batches from number `start`; `what` is the loader as messages call it."""

    def unshuffled(self) -> "Plan":
        """The plan that keeps the data's own order, as far as the order is ours to choose."""


@dataclasses.dataclass(frozen=True)
class ArithmeticPlan:
    """An order that `epoch_order` computes: sequential, a permutation, by length, or draws with replacement.

    `batch_size` None: every micro-batch is one sample as it is, uncollated.
    """

    source: Sized
    batch_size: int | None
    drop_last: bool
    shuffle: bool
    num_samples: int | None = None
    replacement: bool = False
    weights: Tensor | None = None
    lengths: Tensor | None = None

    @property
    def batched(self) -> bool:
        """Whether samples are put together in batches."""
        return self.batch_size is not None

    @property
    def largest(self) -> int | None:
        """Examples in the largest micro-batch."""
        return None if self.batch_size is None else min(self.batch_size, self._count())

    @property
    def ragged(self) -> bool:
        """Whether the last micro-batch is smaller."""
        return not self.drop_last and self._count() % (self.largest or 1) != 0

    def length(self, epoch: int) -> int:  # noqa: ARG002 - the same in every epoch
        """The number of micro-batches."""
        return batch_count(self._count(), self.batch_size or 1, self.drop_last)

    def _count(self) -> int:
        return len(self.source) if self.num_samples is None else self.num_samples

    def unshuffled(self) -> "ArithmeticPlan":
        """The data set from its first example to its last."""
        return ArithmeticPlan(self.source, self.batch_size, self.drop_last, shuffle=False)

    def order(self, key: int, epoch: int) -> Tensor:
        """The indices of the epoch's examples, int64 `[N]`, those of a last micro-batch that is dropped left out."""
        order = epoch_order(
            key,
            epoch,
            len(self.source),
            self.shuffle,
            num_samples=self.num_samples,
            replacement=self.replacement,
            weights=self.weights,
            lengths=self.lengths,
            batch_size=self.batch_size,
        )
        return order[: self.length(epoch) * self.batch_size] if self.batch_size is not None else order

    def tasks(self, key: int, epoch: int, start: int, what: str) -> Iterator[Task]:
        """The epoch's micro-batches from number `start`."""
        order, size = self.order(key, epoch), self.batch_size or 1
        may_repeat = self.replacement or self.weights is not None or len(order) > len(self.source)
        batches = batches_from(order, size, 0 if may_repeat else start)
        if may_repeat:
            lists = (rows.tolist() if self.batched else rows.item() for rows in batches)
            return _counted(lists, epoch, start, self.batched, what)
        indices = batches if self.batched else map(int, batches)
        return (Task(epoch, position, rows, None) for position, rows in enumerate(indices, start))


@dataclasses.dataclass(frozen=True)
class SampledPlan:
    """An order that a foreign sampler or batch sampler draws, with its generators seeded for the epoch."""

    sampler: Iterable[Any]
    batch_size: int | None
    batched: bool
    ragged = True  # for all that is known
    lengths = None

    @property
    def largest(self) -> int | None:
        """Examples in the largest micro-batch, as many as the sampler draws if these are fewer."""
        drawn = sized(self.sampler.sampler) if type(self.sampler) is BatchSampler else None
        return self.batch_size if drawn is None or self.batch_size is None else min(self.batch_size, drawn)

    @property
    def weights(self) -> Tensor | None:
        """Those of a `WeightedRandomSampler`."""
        return next((each.weights for each in _chain(self.sampler) if isinstance(each, WeightedRandomSampler)), None)

    def unshuffled(self) -> "SampledPlan":
        """This plan: the sampler's order is its own."""
        return self

    def length(self, epoch: int) -> int | None:
        """The number of micro-batches, as the sampler has it."""
        set_epoch(epoch, *_chain(self.sampler))
        return sized(self.sampler)

    def tasks(self, key: int, epoch: int, start: int, what: str) -> Iterator[Task]:
        """The epoch's micro-batches from number `start`; those before are drawn, their data not read."""
        batches: Iterator[Any] = self._draw(key, epoch)
        if self.batched:
            batches = (list(indices) for indices in batches)
        return _counted(batches, epoch, start, self.batched, what)

    def _draw(self, key: int, epoch: int) -> Iterator[Any]:
        owners = _chain(self.sampler)
        set_epoch(epoch, *owners)
        randomness, drawing = Randomness(*owners), None
        for block in itertools.count():
            with randomness.seeded(fold_in(key, "sampler", epoch, block)):
                drawing = iter(self.sampler) if drawing is None else drawing
                drawn = list(itertools.islice(drawing, DRAWN_AT_ONCE))
            yield from drawn
            if len(drawn) < DRAWN_AT_ONCE:
                return


def plan_of(loader: DataLoader[Any]) -> Plan:
    """The plan of a map-style DataLoader: its own sampler where that has a meaning of its own."""
    batches = loader.batch_sampler
    sampler, batch_size, drop_last = loader.sampler, loader.batch_size, loader.drop_last
    if type(batches) is BatchSampler:
        sampler, batch_size, drop_last = batches.sampler, batches.batch_size, batches.drop_last
    elif batches is not None:
        return SampledPlan(batches, None, batched=True)
    if type(sampler) is SequentialSampler:
        return ArithmeticPlan(sampler.data_source, batch_size, drop_last, shuffle=False)
    if type(sampler) is RandomSampler:
        count = sampler.num_samples if sampler.num_samples != len(sampler.data_source) else None
        return ArithmeticPlan(sampler.data_source, batch_size, drop_last, True, count, sampler.replacement)
    return SampledPlan(sampler if batches is None else batches, batch_size, batched=batches is not None)


def set_epoch(epoch: int, *objects: Any) -> None:
    """Tell the epoch to those that want to know it (`DistributedSampler` and its likes)."""
    for each in objects:
        if callable(getattr(each, "set_epoch", None)):
            each.set_epoch(epoch)


def sized(value: Any) -> int | None:
    """`len(value)`, or None if it has no length."""
    try:
        return len(value)
    except (TypeError, NotImplementedError):
        return None


def name_of(index: Any) -> int | str:
    """An index as something to hash: the same for 3, `numpy.int64(3)` and `torch.tensor(3)`."""
    try:
        return operator.index(index)
    except TypeError:
        return repr(index)


def _chain(sampler: Any) -> list[Any]:
    """A sampler and the ones that it wraps."""
    chain: list[Any] = []
    while sampler is not None and all(sampler is not seen for seen in chain):
        chain.append(sampler)
        sampler = getattr(sampler, "sampler", None)
    return chain


def _counted(batches: Iterator[Any], epoch: int, start: int, batched: bool, what: str) -> Iterator[Task]:
    """Number batches and repeated indices: a sample that is drawn twice is augmented in two ways."""
    seen: Counter[int | str] = Counter()
    count = 0
    for position, indices in enumerate(batches):
        repeats = []
        for index in indices if batched else [indices]:
            name = name_of(index)
            repeats.append(seen[name])
            seen[name] += 1
        count = position + 1
        if position >= start:
            yield Task(epoch, position, indices, tuple(repeats) if any(repeats) else None)
    check_reached(count, start, epoch, what)


def loader_name(what: str) -> str:
    """What messages call a loader, after "the".

    Example:
        >>> loader_name("train"), loader_name("loader"), loader_name("eval_loader")
        ('train loader', 'loader', 'eval_loader')
    """
    return what if what.endswith("loader") else f"{what} loader"


def check_reached(count: int, start: int, epoch: int, what: str) -> None:
    """Raise DataError if a pass of `count` micro-batches is empty or ends before `start`."""
    if count == 0:
        raise DataError(
            f"the {what} has no batch in epoch {epoch + 1}: its data set is empty, its sampler used up, "
            "or drop_last=True drops the only batch. Check the path or filter that it is made from; "
            "lower batch_size or set drop_last=False"
        )
    if count < start:
        raise DataError(
            f"epoch {epoch + 1} of the {what} has {count} micro-batches, but {start} were already trained "
            "on: its data, sampler or batch_size has changed. Go on with the original ones, or start anew"
        )
