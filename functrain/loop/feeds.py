"""The feeds of a run: its data, as its state takes them."""

from typing import Any

from functrain.data import Portion, Stream, as_stream, first_batches
from functrain.distributed import World
from functrain.foundation.keys import fold_in
from functrain.loop.batches import Feed
from functrain.loop.shared_batches import SharedFeed
from functrain.step.state import TrainState


def training_feed(state: TrainState, loader: Any, world: World, portion: Portion) -> Feed:
    """The training data of a run, as much of them as it uses.

    Raises:
        ValueError, DataError: the loader has no such part.
    """
    key, what = fold_in(state.key, "train"), "loader"
    stream = as_stream(loader, key, what=what)
    if portion.overfit_batches is not None:
        stream = first_batches(stream, portion.overfit_batches, key, what)
    return feed_for(state, stream, world, portion.limit_batches)


def feed_for(state: TrainState, stream: Stream, world: World, limit: int | float | None) -> Feed:
    """What prepares a stream's batches for a state: all of them, or those of this process.

    Args:
        state: whose objective and device they are for.
        stream, world, limit: as of a `Feed`.
    """
    exchange, objective = state.recipe.exchange, state.recipe.objective
    if exchange is None or not exchange.in_tree or world.size == 1:
        return Feed(stream, objective, state.device, world, limit)
    return SharedFeed(stream, objective, state.device, world, limit, exchange.share(state.recipe.accumulate))
