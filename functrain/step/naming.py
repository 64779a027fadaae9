"""The names of an objective's metrics, found out before anything is trained or compiled."""

from functools import partial
from typing import Any

import torch

from functrain.foundation.containers import register_containers
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.generators import preserved_generators
from functrain.foundation.keys import fold_in
from functrain.metrics.totals import Totals
from functrain.step.execution import Core, eager
from functrain.step.objective import run_objective
from functrain.step.state import TrainState


def metric_names(state: TrainState, batch: Any, *, training: bool) -> tuple[str, ...]:
    """The names of the metrics of a batch: in the order of an objective's totals, then those that were asked for.

    The objective runs once, eagerly and without a gradient. Nothing is changed.

    Args:
        state: any state.
        batch: what the objective takes; a few examples will do.
        training: the mode of the model, which an objective may ask for.
    """
    register_containers(batch)
    exchange = state.recipe.exchange
    state = state if exchange is None else state.replace(params=exchange.params(state.params))
    core = Core(partial(_totals, training=training), "name", carries_state=False)
    with torch.no_grad(), preserved_generators(), state.recipe.network.put_back():
        totals: Totals = eager(core, state, batch, key=partial(fold_in, state.key, "names"), device=state.device)
    return totals.names if totals.measured is None else tuple(totals.means())


def _totals(state: TrainState, batch: Any, *, training: bool) -> Totals:
    batch = cast_floating(batch, state.recipe.param_dtype)
    params = state.recipe.collectives.gather(state.params)
    loss, _ = run_objective(state, params, state.buffers, batch, training=training)
    return loss.totals()
