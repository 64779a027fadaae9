"""The feed of a stack: a batch for each member, as its own run would draw it."""

from collections.abc import Iterator, Sequence
from typing import Any

from functrain.data import LoaderOfEach, Portion, Stream, as_stream, first_batches, pad_batch
from functrain.data.indexed import IndexedStream
from functrain.data.together import full_batches
from functrain.distributed import World
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import tree_map
from functrain.loop.batches import Feed, MicroBatch
from functrain.step.members.cores import PerMember
from functrain.step.members.stepping import side_by_side
from functrain.step.state import TrainState


class MemberFeed(Feed):
    """Batches of several feeds side by side.

    Args:
        feeds: of each member.
    """

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = tuple(feeds)
        first = self._feeds[0]
        self.stream, self._limit, self._world = first.stream, first._limit, first._world

    @property
    def size(self) -> int:
        """Rows of a padded batch, the same for all."""
        return max(feed.size for feed in self._feeds)

    @size.setter
    def size(self, size: int) -> None:
        for feed in self._feeds:
            feed.size = size

    def glimpse(self, epoch: int) -> Any:
        """The epoch's first batch of each member; None where that cannot be."""
        batches = [feed.glimpse(epoch) for feed in self._feeds]
        return None if any(batch is None for batch in batches) else side_by_side(batches)

    def micro_batches(self, epoch: int, accumulate: int, tail: str) -> int | None:
        """How many micro-batches of an epoch are trained on.

        Raises:
            DataError: members have different numbers of them.
        """
        counts = [feed.micro_batches(epoch, accumulate, tail) for feed in self._feeds]
        if any(count != counts[0] for count in counts):
            raise DataError(
                f"members of a stack go in step, so the loaders of all must give equally many batches; got {counts}. "
                "Take another batch_size, drop_last=True, or limit_batches"
            )
        return counts[0]

    def blocks(self, epoch: int) -> Iterator[list[MicroBatch]]:
        """All batches of an epoch, once."""
        self.micro_batches(epoch, 1, "short")
        self.size = max(feed._known_size() for feed in self._feeds)
        if self._limit is None:
            return ([micro_batch] for micro_batch in self._mostly_together(epoch, 0))
        every = [self._one_by_one(feed, epoch) for feed in self._feeds]
        return ([_side_by_side(row)] for row in zip(*every, strict=True))

    def _mostly_together(self, epoch: int, start: int) -> Iterator[MicroBatch]:
        """An epoch's micro-batches from `start` on: full ones gathered for all members at once, the last one singly."""
        streams = [feed.stream for feed in self._feeds if isinstance(feed.stream, IndexedStream)]
        together = full_batches(streams, epoch, start) if len(streams) == len(self._feeds) else None
        done = start
        for batch in together or ():
            yield self._prepared_together(batch)
            done += 1
        if done == self.micro_batches(epoch, 1, "short"):
            return
        rest = [feed.windows(epoch, done, 1, "short") for feed in self._feeds]
        yield from map(_side_by_side, zip(*rest, strict=True))

    def _prepared_together(self, batch: list[Any]) -> MicroBatch:
        """A micro-batch `[N, B, ...]` as a step gets it."""
        first, members, rows = self._feeds[0], len(self._feeds), batch[0].shape[1]
        moved = first.moved(batch)
        if first.pads:  # those of all members as one batch, which gets its weights
            padded = pad_batch([tensor.flatten(0, 1) for tensor in moved], members * rows)
            moved = tree_map(lambda tensor: tensor.unflatten(0, (members, rows)), padded)
        return MicroBatch(PerMember(moved), (rows,) * members)

    def windows(self, epoch: int, start: int, accumulate: int, tail: str) -> Iterator[MicroBatch]:
        """The epoch's micro-batches from number `start` on; see `Feed.windows`."""
        self.micro_batches(epoch, accumulate, tail)
        self.size = self.size
        if accumulate == 1 and self._limit is None:
            return self._mostly_together(epoch, start)
        every = [feed.windows(epoch, start, accumulate, tail) for feed in self._feeds]
        return map(_side_by_side, zip(*every, strict=True))

    @staticmethod
    def _one_by_one(feed: Feed, epoch: int) -> Iterator[MicroBatch]:
        return (micro_batch for block in feed.blocks(epoch) for micro_batch in block)


def member_feed(
    state: TrainState, loader: Any, fold: str, what: str, limit: int | float | None, portion: Portion | None = None
) -> Feed:
    """The data of a stack: one batch for all members where their own runs would draw the same, else one for each.

    Args:
        state: a stack.
        loader: for all, or from `data.per_member`.
        fold: what is folded into a member's key for its order.
        what: the loader's name in messages.
        limit: as of a `Feed`.
        portion: which batches are used.

    Raises:
        ValueError: there is another number of loaders than of members, or a loader's order follows from no key.
    """
    assert state.members is not None
    keys = [fold_in(key, fold) for key in state.members.keys]
    loaders = loader.loaders if isinstance(loader, LoaderOfEach) else [loader] * len(keys)
    if len(loaders) != len(keys):
        raise ValueError(f"per_member has {len(loaders)} loaders for a stack of {len(keys)} members")
    streams = [_stream(one, key, what, portion) for one, key in zip(loaders, keys)]
    if not isinstance(loader, LoaderOfEach) and _are_alike(streams, keys):
        return _feed(state, streams[0], limit)
    if any(stream.kind != "indexed" for stream in streams):
        raise ValueError(
            "a loader for each member must be functrain's Loader, or a map-style DataLoader: they are read side by side"
        )
    return MemberFeed([_feed(state, stream, limit) for stream in streams])


def _stream(loader: Any, key: int, what: str, portion: Portion | None) -> Stream:
    stream = as_stream(loader, key, what=what)
    if portion is None or portion.overfit_batches is None:
        return stream
    return first_batches(stream, portion.overfit_batches, key, what)


def _are_alike(streams: Sequence[Stream], keys: Sequence[int]) -> bool:
    """Whether all members get the same batches of one loader: an order that follows from no key, or from one key."""
    first = streams[0]
    if len(set(keys)) == 1 or not isinstance(first, IndexedStream):
        return True
    return first.is_the_same_for(keys)


def _feed(state: TrainState, stream: Stream, limit: int | float | None) -> Feed:
    return Feed(stream, state.recipe.objective, state.device, World(), limit)


def _side_by_side(row: Sequence[MicroBatch]) -> MicroBatch:
    """Micro-batches of members as one."""
    examples = tuple(each.examples for each in row)
    return MicroBatch(side_by_side([each.batch for each in row]), examples, row[0].ends_window)
