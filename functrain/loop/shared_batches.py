"""The micro-batches of one process among several that share out a window's micro-batches, each of them whole."""

import sys
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any

import torch

from functrain.data import Stream, chosen_batches
from functrain.distributed import World
from functrain.loop.batches import Feed, MicroBatch, limited
from functrain.objectives.supervised import Objective
from functrain.step.collectives import Share

NONE = MicroBatch(None, 0, ends_window=True)


class SharedFeed(Feed):
    """A feed that gives a process its micro-batches of each window, and its batches of an evaluation.

    An indexed stream does not read those of other processes.

    Args:
        stream, objective, device, limit: as of a `Feed`.
        world: the ranks.
        share: the micro-batches of a window that are this one's.
    """

    def __init__(
        self,
        stream: Stream,
        objective: Objective,
        device: torch.device,
        world: World,
        limit: int | float | None,
        share: Share,
    ) -> None:
        super().__init__(stream, objective, device, World(), limit)
        self.world, self._share = world, share

    def windows(self, epoch: int, start: int, accumulate: int, tail: str) -> Iterator[MicroBatch]:
        """This process's micro-batches from the window on that begins at number `start`; see `Feed.windows`.

        Where a short window has fewer for this process than the others, the last of them ends it; where it has none,
        there is a `MicroBatch` of None.
        """
        own, share = self._own(epoch, start, accumulate, tail), self._share
        total = self.micro_batches(epoch, accumulate, tail)
        if not total:  # it is not known, and the windows are full; or the feed says why there are none
            yield from own
            return
        for begin in range(start, total, accumulate):
            number_of_own = min(max(min(accumulate, total - begin) - share.first, 0), share.number)
            if not number_of_own:
                yield NONE
            for number in range(1, number_of_own + 1):
                yield next(own)._replace(ends_window=number == number_of_own < share.number)

    def _own(self, epoch: int, start: int, accumulate: int, tail: str) -> Iterator[MicroBatch]:
        """This process's micro-batches from number `start` on. What is not indexed is read whole by each process."""
        total, share = self.micro_batches(epoch, accumulate, tail), self._share

        def is_own(number: int) -> bool:
            inside = total is None or number < total
            return inside and share.first <= number % accumulate < share.first + share.number

        if self.stream.kind != "indexed" or not total:
            every = enumerate(super().windows(epoch, start, accumulate, tail), start)
            return (micro_batch for number, micro_batch in every if is_own(number))
        length = limited(self.stream.length(epoch) or 0, accumulate, tail, self._limit)
        passes = range(start - start % length, total, length)  # one that is extended goes on from its beginning
        batches = chain.from_iterable(self._pass(epoch, start, before, length, is_own) for before in passes)
        return map(self.prepare, batches)

    def _pass(self, epoch: int, start: int, before: int, length: int, is_own: Callable[[int], bool]) -> Iterator[Any]:
        """This process's batches of one pass of `length` batches, where `before` are done in earlier ones."""
        return chosen_batches(
            self.stream,
            epoch,
            max(start - before, 0),
            lambda number: number < length and is_own(before + number),
        )

    def turns(self, epoch: int) -> Iterator[tuple[int, MicroBatch]]:
        """This process's batches of an evaluation, each with its number: every so many, as there are processes."""
        world = self.world
        if self.stream.kind != "indexed":
            every = enumerate(chain.from_iterable(self.blocks(epoch)))
            return (pair for pair in every if pair[0] % world.size == world.rank)
        self.size = self._known_size()
        length = self.stream.length(epoch)
        end = sys.maxsize if length is None else limited(length, 1, "short", self._limit)
        own = chosen_batches(self.stream, epoch, 0, lambda n: n < end and n % world.size == world.rank)
        return zip(count(world.rank, world.size), map(self.prepare, own))
