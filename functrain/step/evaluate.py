"""The pure evaluation step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from functrain.foundation.containers import register_containers
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.keys import fold_in
from functrain.metrics.totals import Totals
from functrain.objectives.unfit import raise_explained
from functrain.step.execution import Core, Runner, eager, refuse_autocast
from functrain.step.gradient import run_objective
from functrain.step.state import TrainState, require_state
from functrain.step.to_module import to_evaluate


def eval_step(state: TrainState, batch: Any, *, ema: bool = False, run: Runner = eager) -> Totals:
    """The metric sums of one batch, the model in evaluation mode. Changes nothing.

    Pure as `train_step` is: what a model or objective draws at random here depends on the state alone.

    Args:
        state: any state.
        batch: what the objective takes.
        ema: evaluate the averaged parameters (with the averaged buffers, if there are).
        run: what executes the tensor part; `functrain.compile` sets it.

    Returns:
        Sums that can be added over batches: `(totals + totals).means()`.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> batch = (torch.ones(4, 2), torch.zeros(4, 1))
        >>> totals = ft.eval_step(state, batch) + ft.eval_step(state, batch)
        >>> sorted(totals.means()), totals.weight.item()
        (['loss', 'mae'], 8.0)
    """
    require_state("eval_step", state)
    refuse_autocast(state.device)
    execute: Callable[..., Any] = run
    if torch.compiler.is_dynamo_compiling() and run is eager:  # a torch.compile of the user's own
        from functrain.step import users_compile

        execute = users_compile.run
    else:
        register_containers(batch)
    key = partial(fold_in, state.key, "evaluate", state.step)
    evaluated = to_evaluate(state, ema=ema)
    try:
        return execute(EVALUATE, evaluated, batch, key=key, device=state.device)
    except Exception as error:
        raise_explained(error, batch, state.recipe.objective)


def _evaluate(state: TrainState, batch: Any) -> Totals:
    batch = cast_floating(batch, state.recipe.param_dtype)
    params = state.recipe.collectives.gather(state.params)
    loss, _ = run_objective(state, params, state.buffers, batch, training=False)
    return loss.totals().counted()


EVALUATE = Core(_evaluate, "evaluate", carries_state=False)
