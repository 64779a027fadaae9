"""A state's objective, computed in the state's precision."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.dtypes import cast_floating
from functrain.foundation.errors import FunctrainError
from functrain.metrics.measuring import Measures
from functrain.objectives.judged import judged
from functrain.objectives.loss import Loss
from functrain.objectives.outputs import named_outputs
from functrain.objectives.supervised import takes_step, takes_weight
from functrain.objectives.uncounted import finite_batch
from functrain.step.activations import Seen
from functrain.step.state import Params, TrainState


def run_objective(
    state: TrainState,
    params: Params,
    buffers: Params,
    batch: Any,
    *,
    training: bool,
    seen: Seen | None = None,
    until: contextlib.ExitStack | None = None,
) -> tuple[Loss, Params]:
    """The loss of a batch, and the buffers after it; `seen` and `until` are `Network.apply`'s."""
    objective, recipe = _bound(state), state.recipe
    batch = counted_batch(objective, batch)
    measures = recipe.metrics.fixed if training and recipe.metrics is not None else recipe.metrics
    outputs: list[Any] = []
    with precision(state):
        loss, new_buffers = recipe.network.apply(
            _noting(objective, measures, outputs), params, buffers, batch, training=training, seen=seen, until=until
        )
    return _measured(state, measures, _checked(loss), outputs, batch), new_buffers


def evaluated_losses(state: TrainState, params: Params, batches: Iterable[Any]) -> list[Loss]:
    """The losses of several batches, the model in evaluation mode. What they have in common is prepared once."""
    objective, dtype, measures = _bound(state), state.recipe.param_dtype, state.recipe.metrics
    given = (counted_batch(objective, cast_floating(batch, dtype)) for batch in batches)

    def measured(model: nn.Module, batch: Any) -> Loss:
        outputs: list[Any] = []
        loss = _checked(_noting(objective, measures, outputs)(model, batch))
        with torch.autocast(state.device.type, enabled=False):
            return _measured(state, measures, loss, outputs, batch)

    with precision(state):
        if measures is None:
            return list(map(_checked, state.recipe.network.evaluate_each(objective, params, state.buffers, given)))
        return state.recipe.network.evaluate_each(measured, params, state.buffers, given)


def precision(state: TrainState) -> contextlib.AbstractContextManager[object]:
    """Within, a model computes in the state's precision, whatever the caller's autocast says."""
    recipe, device = state.recipe, state.device.type
    mixed = recipe.compute_dtype != recipe.param_dtype
    if not mixed and not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()  # `autocast` takes some microseconds
    # No cache of casts: it would outlive the trace (and every parameter is cast once anyway).
    return torch.autocast(device, recipe.compute_dtype, enabled=mixed, cache_enabled=False)


def counted_batch(objective: Callable[..., Any], batch: Any) -> Any:
    """The batch with nothing in it that is not finite where the objective does not count it."""
    return finite_batch(batch) if takes_weight(objective) else batch


def _bound(state: TrainState) -> Callable[..., Any]:
    """The objective with the number of past updates, if it takes that."""
    objective: Callable[..., Any] = state.recipe.objective
    return functools.partial(objective, step=state.counts.applied) if takes_step(objective) else objective


def _noting(
    objective: Callable[..., Any], measures: Measures | None, outputs: list[Any]
) -> Callable[[nn.Module, Any], Any]:
    """The objective; what the model returns to it is appended to `outputs`, if something is measured."""
    if measures is None or not measures.metrics:
        return objective

    def noting(model: nn.Module, batch: Any) -> Any:
        handle = model.register_forward_hook(lambda _model, _inputs, output: outputs.append(output))
        try:
            return objective(model, batch)
        finally:
            handle.remove()

    return noting


def _measured(state: TrainState, measures: Measures | None, loss: Loss, outputs: list[Any], batch: Any) -> Loss:
    """The loss with the accumulators of what is measured; of several calls of the model, the last one counts."""
    if measures is None or not measures.metrics:
        return loss
    if not outputs:
        raise FunctrainError(
            "metrics compare what the model returns with the targets, but the objective did not call the model itself "
            "(a part of it, perhaps). Return sums from the objective instead: Loss(total, weight, metrics)"
        )
    found = judged(state.recipe.objective, outputs[-1], batch)
    others = named_outputs(outputs[-1]) if measures.outputs else None
    return dataclasses.replace(loss, measured=measures.of(*found, outputs=others or {}))


def _checked(loss: Any) -> Loss:
    if not isinstance(loss, Loss):
        raise TypeError(
            f"the objective returned {type(loss).__name__}, not a functrain.Loss(total, weight, metrics); an "
            "ordinary mean loss becomes an objective with functrain.supervised(loss)"
        )
    if not isinstance(loss.total, Tensor):
        raise TypeError(f"Loss.total must be a tensor to be differentiated, got {loss.total!r}")
    return loss
