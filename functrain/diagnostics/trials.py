"""Trying things out on a copy: what training would do, with nothing changed."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from functrain.data import as_stream
from functrain.data.randomness import Randomness
from functrain.distributed import World
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import copy_tensors
from functrain.loop.batches import Feed, MicroBatch, no_training_data
from functrain.step.state import TrainState


@contextmanager
def trial_feed(state: TrainState, loader: Any) -> Iterator[Feed]:
    """The training data as `fit` would read them from the beginning; afterwards the loader is where it was.

    Raises:
        TypeError: if `loader` is an iterator, which could not be put back, or no loader at all.
    """
    if isinstance(loader, Iterator):
        raise TypeError(
            f"the loader is an iterator ({type(loader).__name__}), whose batches would be gone after the trial; give "
            "an object whose __iter__ starts anew: a list, a DataLoader, functrain's Loader"
        )
    stateful = all(callable(getattr(loader, name, None)) for name in ("state_dict", "load_state_dict"))
    position = copy.deepcopy(loader.state_dict()) if stateful else None
    with Randomness(loader).preserved():
        stream = as_stream(loader, fold_in(state.key, "train"), what="loader")
        try:
            yield Feed(stream, state.recipe.objective, state.device, World(0, 1))
        finally:
            stream.close()
            if stateful:
                loader.load_state_dict(position)


def endless(feed: Feed, accumulate: int) -> Iterator[MicroBatch]:
    """The micro-batches of one epoch after the other, in whole windows.

    Raises:
        DataError: if there is none.
    """
    epoch = 0
    while True:
        number = -1
        for number, micro_batch in enumerate(feed.windows(epoch, 0, accumulate, "extend")):  # noqa: B007
            yield micro_batch
        if number < 0:
            raise no_training_data()
        epoch += 1


def own_copy(state: TrainState) -> TrainState:
    """A copy between two windows, that a donating step may have."""
    if state.accumulator is not None and state.accumulator.count:
        raise ValueError(
            f"the state is within an accumulation window ({state.accumulator.count} of {state.recipe.accumulate} "
            "micro-batches); give one between two updates"
        )
    copied: TrainState = copy_tensors(state)
    return copied
