"""The metrics that a state was asked for: which they are, and room for their accumulators."""

import dataclasses
from functools import partial
from typing import Any

import torch

from functrain.foundation.containers import register_containers
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.errors import FunctrainError
from functrain.foundation.generators import preserved_generators
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import copy_tensors, tree_map
from functrain.metrics.measuring import Measures
from functrain.metrics.totals import Totals
from functrain.step.execution import Core, eager
from functrain.step.members.cores import member_of
from functrain.step.members.stepping import first_batch
from functrain.step.objective import run_objective
from functrain.step.state import TrainState


def with_metrics(state: TrainState, metrics: Measures | None) -> TrainState:
    """The state with these metrics, measured from here on, in place of those that it has.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1))
        >>> state = with_metrics(state, ft.metrics.measures(["f1"]))
        >>> state, metrics = ft.train_step(state, (torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)))
        >>> "f1" in metrics
        True
    """
    if metrics == state.recipe.metrics:
        return state
    window, stacked = state.accumulator, state.recipe.stacked
    if stacked is not None:
        recipes = tuple(dataclasses.replace(recipe, metrics=metrics) for recipe in stacked.recipes)
        stacked = dataclasses.replace(stacked, recipes=recipes)
    return state.replace(
        recipe=dataclasses.replace(state.recipe, metrics=metrics, stacked=stacked),
        epoch_metrics=None,
        accumulator=None if window is None else dataclasses.replace(window, metrics=None),
    )


def lacks_accumulators(state: TrainState) -> bool:
    """Whether a state is to measure something, and has no room for it yet: that depends on what the model returns."""
    metrics = state.recipe.metrics
    return metrics is not None and state.epoch_metrics is None and bool(metrics.fixed.metrics)


def with_accumulators(state: TrainState, batch: Any) -> tuple[TrainState, tuple[str, ...]]:
    """The state with empty accumulators, and the names of the objective's own metrics.

    The objective runs once, eagerly and without a gradient.

    Args:
        state: any state.
        batch: what the objective takes; a few examples will do.

    Raises:
        FunctrainError: within a torch.compile of the caller's, which cannot run it.
    """
    if torch.compiler.is_dynamo_compiling():
        raise FunctrainError(
            "a state that was asked for metrics needs room for them before its first compiled step: call "
            "functrain.train_step once outside of torch.compile, and go on with the state that it returns"
        )
    if batch is None:
        raise FunctrainError(
            "metrics were asked for, and the first window has no micro-batch for this process: an epoch must have a "
            "batch for each process at least"
        )
    if state.members is not None:
        return _for_members(state, batch)
    register_containers(batch)
    core, exchange = Core(_totals, "measure", carries_state=False), state.recipe.exchange
    start = state if exchange is None else state.replace(params=exchange.params(state.params))
    with torch.no_grad(), preserved_generators(), state.recipe.network.put_back():
        totals: Totals = eager(core, start, batch, key=partial(fold_in, state.key, "names"), device=state.device)
    assert totals.measured is not None
    window = state.accumulator
    if window is not None:
        window = dataclasses.replace(window, metrics=totals.measured.emptied())
    return state.replace(epoch_metrics=totals.measured.emptied(), accumulator=window), totals.names


def _for_members(state: TrainState, batch: Any) -> tuple[TrainState, tuple[str, ...]]:
    """`with_accumulators` of a stack: the first member's, for each."""
    assert state.members is not None
    count = len(state.members)
    first, names = with_accumulators(member_of(state, 0), first_batch(batch))
    metrics = tree_map(lambda leaf: leaf.expand(count, *leaf.shape).clone(), first.epoch_metrics)
    window = state.accumulator
    if window is not None:
        window = dataclasses.replace(window, metrics=copy_tensors(metrics))
    return state.replace(epoch_metrics=metrics, accumulator=window), names


def _totals(state: TrainState, batch: Any) -> Totals:
    batch = cast_floating(batch, state.recipe.param_dtype)
    params = state.recipe.collectives.gather(state.params)
    loss, _ = run_objective(state, params, state.buffers, batch, training=True)
    return loss.totals()
