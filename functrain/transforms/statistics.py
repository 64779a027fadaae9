"""BatchNorm's statistics, estimated anew for the weights at hand."""

import dataclasses
from functools import partial
from typing import Any

import torch

from functrain.foundation.dtypes import cast_floating
from functrain.foundation.keys import fold_in
from functrain.foundation.numbers import is_integer
from functrain.objectives.unfit import raise_explained
from functrain.step.execution import Core, eager, refuse_autocast
from functrain.step.network import Network
from functrain.step.objective import run_objective
from functrain.step.state import Params, TrainState, require_state
from functrain.step.to_module import chosen_params, to_module
from functrain.transforms.batches import Batches
from functrain.transforms.examples import BATCH_NORMS
from functrain.transforms.per_sample import gradient_part


def recompute_buffers(state: TrainState, loader: Any, *, max_batches: int | None = None) -> TrainState:
    """The state with BatchNorm's running statistics estimated anew, as means over a loader's batches.

    For weights that were averaged or interpolated, which no statistics of a run fit. The model is in training mode, as
    `torch.optim.swa_utils.update_bn` has it: dropout is on. Parameters, other buffers and modules without running
    statistics stay as they are, as does a BatchNorm in evaluation mode.

    Args:
        state: any state; not changed.
        loader: the training data; each batch counts alike.
        max_batches: how many to use; None: all of the first pass.

    Raises:
        DataError: the loader gives no batch.
        ValueError: `max_batches` is not 1 or more.

    Example:
        >>> import functrain as ft
        >>> net = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 1))
        >>> state = ft.init_state(net, ft.regression(), ft.optim.sgd(0.1))
        >>> batch = (torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))
        >>> recompute_buffers(state, [batch]).buffers["0.running_mean"]
        tensor([2.])
    """
    require_state("recompute_buffers", state)
    if max_batches is not None and not is_integer(max_batches, 1):
        raise ValueError(f"max_batches must be a whole number of batches, 1 or more, or None; got {max_batches!r}")
    refuse_autocast(state.device)
    module = to_module(state)
    module = module if module.training else module.train()
    norms = {
        name: each
        for name, each in module.named_modules()
        if isinstance(each, BATCH_NORMS) and each.training and each.track_running_stats
    }
    for each in norms.values():
        each.reset_running_stats()
        each.momentum = None  # a cumulative mean
    wanted = {f"{name}.{key}".lstrip(".") for name, each in norms.items() for key, _ in each.named_buffers()}
    if not wanted:
        return state
    network = Network(module)
    fresh = {name: b.detach() for name, b in module.named_buffers()}
    part = gradient_part(state).replace(
        params=chosen_params(state, ema=False),
        buffers=fresh,
        recipe=dataclasses.replace(state.recipe, network=network),
    )
    for number, batch in enumerate(Batches(state, loader)):
        if number == max_batches:
            break
        key = partial(fold_in, state.key, "statistics", number)
        try:
            after = eager(_FORWARD, part, batch, key=key, device=state.device)
        except Exception as error:
            raise_explained(error, batch, state.recipe.objective)
        part = part.replace(buffers=after)
    buffers = {name: part.buffers[name] if name in wanted else b for name, b in state.buffers.items()}
    return state.replace(buffers=buffers)


def _forward(state: TrainState, batch: Any) -> Params:
    """The buffers after a batch."""
    with torch.no_grad():
        batch = cast_floating(batch, state.recipe.param_dtype)
        return run_objective(state, state.params, state.buffers, batch, training=True)[1]


_FORWARD = Core(_forward, "statistics", carries_state=False)
