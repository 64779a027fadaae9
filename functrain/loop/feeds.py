"""The feeds of a run: its data, as its state takes them."""

from typing import Any

from functrain.data import LoaderOfEach, Portion, Stream, as_stream, first_batches
from functrain.distributed import World
from functrain.foundation.keys import fold_in
from functrain.loop.batches import Feed
from functrain.loop.member_feed import member_feed
from functrain.loop.shared_batches import SharedFeed
from functrain.step.state import TrainState


def training_feed(state: TrainState, loader: Any, world: World, portion: Portion) -> Feed:
    """The training data of a run, as much of them as it uses.

    Raises:
        ValueError, DataError: the loader has no such part.
    """
    key, what = fold_in(state.key, "train"), "loader"
    if state.members is not None:
        return member_feed(state, loader, "train", what, portion.limit_batches, portion)
    _refuse_loader_of_each(loader)
    stream = as_stream(loader, key, what=what)
    if portion.overfit_batches is not None:
        stream = first_batches(stream, portion.overfit_batches, key, what)
    return feed_for(state, stream, _of_data(state, world), portion.limit_batches)


def _of_data(state: TrainState, world: World) -> World:
    """This process among those that share out the data."""
    exchange = state.recipe.exchange
    return world if exchange is None else World(exchange.rank, exchange.ranks)


def evaluation_feed(state: TrainState, loader: Any, world: World, limit: int | float | None) -> Feed:
    """The data of a run's evaluations."""
    key, what = fold_in(state.key, "eval"), "eval_loader"
    if state.members is not None:
        return member_feed(state, loader, "eval", what, limit)
    _refuse_loader_of_each(loader)
    return feed_for(state, as_stream(loader, key, what=what), world, limit)


def _refuse_loader_of_each(loader: Any) -> None:
    if isinstance(loader, LoaderOfEach):
        raise TypeError("data.per_member has a loader for each member of a stack; this state is one model's")


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
