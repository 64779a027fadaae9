"""Linear layers of which each process of a group has a slice: the column and row layers of tensor parallelism.

    column  y_t = enter(x) W_t^T + b_t      W_t: rows of W, so that y_t are some of the outputs
    row     y   = leave(x_t W_t^T) + b      W_t: columns of W, for the inputs x_t that the process has

`enter` is the identity, and its gradient the sum over the processes; `leave` is the sum, and its gradient the identity.
Between a column layer and the row layer behind it each process computes with its part of the features.

References:
    Shoeybi et al., Megatron-LM: Training multi-billion parameter language models using model parallelism, 2019,
    section 3.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from functrain.foundation.torch_internals import all_reduced


@dataclass(frozen=True)
class SlicedLayer:
    """A linear layer that a network runs in slices.

    Attributes:
        path: of the module.
        is_column: whether a process has rows of the weight and of the bias; else it has columns of the weight.
        group: torch's process group; None: all processes.
    """

    path: str
    is_column: bool
    group: Any


def slice_layers(net: nn.Module, layers: Iterable[SlicedLayer]) -> None:
    """Let these layers of a network, which is changed, run as this module says, wherever they have a slice."""
    for layer in layers:
        module: Any = net.get_submodule(layer.path)
        run = _column if layer.is_column else _row
        vars(module)["forward"] = partial(run, module, layer, module.forward)


class _Enter(torch.autograd.Function):
    """The identity, whose gradient is summed: each process has the gradient of its outputs alone."""

    @staticmethod
    def forward(inputs: Tensor, _group: Any) -> Tensor:
        return inputs.view_as(inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Any], _output: Tensor) -> None:
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return all_reduced(grads[0].contiguous(), ctx.group), None


class _Leave(torch.autograd.Function):
    """The sum over the processes, each of which computes the same from there on, and so has the whole gradient."""

    @staticmethod
    def forward(inputs: Tensor, group: Any) -> Tensor:
        return all_reduced(inputs.contiguous(), group)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Any], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(_: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _column(module: nn.Linear, layer: SlicedLayer, alone: Any, inputs: Tensor) -> Tensor:
    if len(module.weight) == module.out_features:  # the whole weight, as evaluations have it
        result: Tensor = alone(inputs)
        return result
    _check(inputs, module, layer, "the whole features of an example, not those of another column layer")
    return F.linear(_Enter.apply(inputs, _group(layer)), module.weight, module.bias)


def _row(module: nn.Linear, layer: SlicedLayer, alone: Any, inputs: Tensor) -> Tensor:
    if module.weight.shape[1] == module.in_features:
        result: Tensor = alone(inputs)
        return result
    _check(inputs, module, layer, "the features of a column layer before it: name that one, too")
    found = _Leave.apply(F.linear(inputs, module.weight), _group(layer))
    return found if module.bias is None else found + module.bias


def _group(layer: SlicedLayer) -> Any:
    return dist.group.WORLD if layer.group is None else layer.group


def _check(inputs: Tensor, module: nn.Linear, layer: SlicedLayer, takes: str) -> None:
    if inputs.shape[-1] != module.weight.shape[1]:
        kind = "column" if layer.is_column else "row"
        raise ValueError(
            f"tensor_parallel: the {kind} layer {layer.path!r} takes {takes}; it has {module.weight.shape[1]} columns "
            f"on each process, and got {inputs.shape[-1]} features"
        )
