"""The micro-batches of an epoch, as the steps get them.

Where an epoch's batches do not fill the last accumulation window, `tail` says what happens: "extend" draws on
from the start of the epoch's order, "short" makes a smaller window, "drop" leaves the rest out.
A ragged batch is padded with examples of weight zero, so that there is one shape and one compilation. One that holds an
object (such as a graph) or lists of examples stays as it is.
"""

import sys
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import torch

from functrain.data import Stream, Transfer, glimpse, pad_batch, part_of_length
from functrain.distributed import World, part_of
from functrain.foundation.containers import objects_in
from functrain.foundation.errors import DataError
from functrain.objectives.examples import count_examples, takes_lists
from functrain.objectives.supervised import Objective, takes_weight

TAILS = ("extend", "short", "drop")


class MicroBatch(NamedTuple):
    """A batch on its way into a step.

    Attributes:
        batch: padded, on the device.
        examples: real ones among its rows, an int; of `PerMember`, a tuple with those of each.
        ends_window: it is the last of a window that is shorter than the others.
    """

    batch: Any
    examples: Any
    ends_window: bool = False


class Feed:
    """Prepares a stream's batches for an objective: pads them, moves them, takes this rank's part.

    Attributes:
        stream: where batches come from.
        size: rows of a padded batch.

    Args:
        stream: likewise.
        objective: whom they are for.
        device: where to.
        world: the ranks.
        limit: how many of an epoch's first batches are used, or which fraction of them; see `part_of_length`.
    """

    def __init__(
        self,
        stream: Stream,
        objective: Objective,
        device: torch.device,
        world: World,
        limit: int | float | None = None,
    ) -> None:
        if isinstance(limit, float) and stream.length(0) is None:
            raise ValueError(
                f"{limit} of the batches can be taken of a loader of known length only (one with len()): give a whole "
                "number of batches (limit_batches, eval_limit_batches)"
            )
        self.stream = stream
        self._limit = limit
        self._world, self._alone = world, world.size == 1
        even = not stream.ragged and (stream.batch_size or 0) % world.size == 0
        self._lists = takes_lists(objective)
        self._pads = takes_weight(objective) and not even and not self._lists
        self._transfer = Transfer(device)
        self._count = count_examples(objective)
        self._on_cpu = device.type == "cpu"
        self.size = self._known_size()

    def prepare(self, batch: Any, ends_window: bool = False) -> MicroBatch:
        """Pad to the full size (the largest so far, where the stream does not know it) and move to the device."""
        batch = self.moved(batch)
        examples = self._count(batch)
        if self._pads and not objects_in(batch):
            self.size = max(self.size, examples)
            batch = pad_batch(batch, self.size + -self.size % self._world.size)
        return MicroBatch(
            batch if self._alone else part_of(batch, self._world, lists=self._lists), examples, ends_window
        )

    def moved(self, batch: Any) -> Any:
        """The batch on the device."""
        return self._transfer(batch)

    @property
    def pads(self) -> bool:
        """Whether batches get weights, those that are full too, so that all have one form."""
        return self._pads

    def blocks(self, epoch: int) -> Iterator[list[MicroBatch]]:
        """All batches of an epoch, once; together are those that may be read before the first of them is used."""
        self.size = self._known_size()  # what earlier passes saw must not show in this one's rounding
        return self._in_blocks(self._batches(epoch, 0, 1, "short"))

    def glimpse(self, epoch: int) -> Any:
        """The epoch's first batch as its stream has it, beside the pass to come; None where that cannot be."""
        return glimpse(self.stream, epoch)

    def micro_batches(self, epoch: int, accumulate: int, tail: str) -> int | None:
        """How many micro-batches of an epoch are trained on; None if that is not known."""
        length = self.stream.length(epoch)
        return None if length is None else windows_in(length, accumulate, tail, self._limit)

    def _batches(self, epoch: int, start: int, accumulate: int, tail: str) -> Iterator[Any]:
        """One pass over the epoch's batches from number `start` on, up to the limit."""
        batches = self.stream.batches(epoch, start)
        if self._limit is None:
            return batches
        length = self.stream.length(epoch)
        end = limited(sys.maxsize if length is None else length, accumulate, tail, self._limit)
        return islice(batches, max(end - start, 0))

    def _known_size(self) -> int:
        """Rows of a padded batch before the first one; an iterable may end before it has filled its `batch_size`."""
        return (self.stream.batch_size or 0) if self.stream.kind == "indexed" else 0

    def windows(self, epoch: int, start: int, accumulate: int, tail: str) -> Iterator[MicroBatch]:
        """The epoch's micro-batches from number `start` on, in whole windows as `tail` says.

        Raises:
            DataError: if `tail` drops all of them.
        """
        whole = self.stream.length(epoch)
        length = None if whole is None else limited(whole, accumulate, tail, self._limit)
        rest = 0 if length is None else length % accumulate
        if length is not None and tail == "drop":
            if length == rest > 0:
                raise DataError(
                    f"an epoch has {length} batches, fewer than the {accumulate} of an update (accumulate), and "
                    "tail='drop' leaves out what does not fill one. Set tail='extend' or 'short', or accumulate less"
                )
            batches = self._batches(epoch, start, accumulate, tail)
            return self._prepared(islice(batches, max(length - rest - start, 0)))
        if length is not None and tail == "short" and rest:
            numbered = enumerate(self._batches(epoch, start, accumulate, tail), start + 1)
            return (self.prepare(batch, ends_window=number == length) for number, batch in numbered)
        if accumulate == 1:
            return self._prepared(self._batches(epoch, start, accumulate, tail))
        return self._prepared(self._extended(epoch, start, length, accumulate))

    def _prepared(self, batches: Iterator[Any]) -> Iterator[MicroBatch]:
        """On a CPU small ones are prepared together: one by one, a compiled step in between has cleared the caches."""
        return chain.from_iterable(self._in_blocks(batches)) if self._on_cpu else map(self.prepare, batches)

    def _in_blocks(self, batches: Iterator[Any]) -> Iterator[list[MicroBatch]]:
        return iter(lambda: list(map(self.prepare, islice(batches, self.stream.at_once if self._on_cpu else 1))), [])

    def _extended(self, epoch: int, start: int, length: int | None, accumulate: int) -> Iterator[Any]:
        """One pass from `start`, then on from the epoch's beginning until the window is full."""
        position = start
        if length is None or start < length:
            for batch in self._batches(epoch, start, accumulate, "extend"):
                yield batch
                position += 1
        while missing := -position % accumulate:
            before = position
            for batch in islice(self.stream.batches(epoch, 0 if length is None else position % length), missing):
                yield batch
                position += 1
            if position == before:
                return


def no_training_data() -> DataError:
    """The error of a loader that gives no batch to train on."""
    return DataError("the training data are empty: the loader gave no batch. Look at its data set and drop_last")


def limited(length: int, accumulate: int, tail: str, limit: int | float | None) -> int:
    """How many of `length` batches an epoch has at most. A last window is filled with those that follow.

    Example:
        >>> limited(10, 1, "extend", 3), limited(10, 4, "extend", 3), limited(10, 4, "short", 3)
        (3, 4, 3)
    """
    found = part_of_length(limit, length)
    return min(found + -found % accumulate, length) if tail == "extend" else found


def windows_in(length: int, accumulate: int, tail: str, limit: int | float | None = None) -> int:
    """Micro-batches that are trained on in an epoch of `length` batches.

    Example:
        >>> windows_in(10, 4, "extend"), windows_in(10, 4, "short"), windows_in(10, 4, "drop")
        (12, 10, 8)
        >>> windows_in(10, 4, "extend", limit=3), windows_in(10, 4, "short", limit=0.5)
        (4, 5)
    """
    length = limited(length, accumulate, tail, limit)
    return {"extend": length + -length % accumulate, "short": length, "drop": length - length % accumulate}[tail]
