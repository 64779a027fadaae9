"""The forward pass in evaluation mode, as a core that a runner runs."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from functrain.foundation.containers import register_containers
from functrain.foundation.dtypes import cast_floating
from functrain.objectives.supervised import call
from functrain.step.execution import Core
from functrain.step.objective import precision
from functrain.step.state import TrainState


def forward(state: TrainState, inputs: Any) -> Any:
    """The model's outputs, in the parameters' precision."""
    with precision(state):
        outputs, _ = state.recipe.network.apply(
            _outputs_in(state.recipe.param_dtype), state.params, state.buffers, inputs, training=False
        )
    return outputs


def _forward_each(state: TrainState, given: Iterable[Any]) -> list[Any]:
    with precision(state):
        return state.recipe.network.evaluate_each(
            _outputs_in(state.recipe.param_dtype), state.params, state.buffers, given
        )


def _outputs_in(dtype: torch.dtype) -> Callable[[Any, Any], Any]:
    """A function of a model and inputs: the outputs in the parameters' precision."""

    def outputs_of(model: Any, inputs: Any) -> Any:
        outputs = call(model, cast_floating(inputs, dtype))
        register_containers(outputs)
        return cast_floating(outputs, dtype)

    return outputs_of


FORWARD = Core(forward, "forward", carries_state=False, each=_forward_each)
