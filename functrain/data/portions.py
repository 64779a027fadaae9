"""A part of the data: for a quick look at a run, or to see whether a model can learn a few batches by heart."""

import math
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

from functrain.data.indexed import IndexedStream
from functrain.data.iterables import IterableStream
from functrain.data.streams import Stream
from functrain.foundation.errors import DataError


class Portion(NamedTuple):
    """Which of the batches are used: settings of `fit` of the same names.

    Attributes:
        limit_batches: so many of an epoch's first ones, or this fraction of them.
        overfit_batches: so many of the first ones, in each epoch.
    """

    limit_batches: int | float | None = None
    overfit_batches: int | None = None


def part_of_length(limit: int | float | None, length: int) -> int:
    """How many batches of so many a limit leaves.

    Args:
        limit: a number of batches, or a fraction as a float; None for all.
        length: of the whole.

    Example:
        >>> part_of_length(3, 10), part_of_length(30, 10), part_of_length(0.25, 10), part_of_length(1.0, 10)
        (3, 10, 3, 10)
    """
    if limit is None:
        return length
    # By the decimal digits that somebody wrote: 0.07 of 100 is 7.
    return math.ceil(Fraction(repr(limit)) * length) if isinstance(limit, float) else min(limit, length)


def first_batches(stream: Stream, count: int, key: int, what: str) -> Stream:
    """The first batches of a stream's data, in memory: in the data's own order, where the stream would shuffle them.

    Args:
        stream: is closed.
        count: how many.
        key: of the new stream.
        what: the loader as messages call it.

    Raises:
        DataError: there are fewer.

    Example:
        >>> import torch
        >>> from functrain.data import Arrays, Loader
        >>> stream = Loader(Arrays(torch.arange(6)), batch_size=2).stream(key=0)
        >>> [rows.tolist() for [rows] in first_batches(stream, 2, key=0, what="loader").batches(epoch=5)]
        [[0, 1], [2, 3]]
    """
    ordered = stream.unshuffled() if isinstance(stream, IndexedStream) else stream
    try:
        kept: list[Any] = list(islice(ordered.batches(0), count))
    finally:
        ordered.close()
    if len(kept) < count:
        raise DataError(f"overfit_batches={count}, but the {what} gives {len(kept)}: give {len(kept)} or fewer")
    return IterableStream(kept, key, what, repeats=True)
