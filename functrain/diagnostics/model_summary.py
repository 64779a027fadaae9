"""What a model is and what training it takes: layers, parameters, operations and memory of a step."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from functrain.compiler.refusals import users_line
from functrain.data import to_device
from functrain.diagnostics.flops import count_flops
from functrain.diagnostics.layers import Layer, Outputs, layers_of, noted
from functrain.diagnostics.without_values import LiveMemory, without_values
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.numbers import is_integer
from functrain.foundation.trees import nbytes, tensors, tree_map
from functrain.foundation.units import operations, size
from functrain.loop.memory import InParts
from functrain.step import train_step
from functrain.step.execution import Runner, eager
from functrain.step.modules import deep_copy, without_compilers
from functrain.step.network import Network
from functrain.step.objective import run_objective
from functrain.step.state import TrainState

DEPTH = 3  # of the layers that are listed


@dataclass(frozen=True)
class StateMemory:
    """Bytes that a state takes, and a step on it.

    Attributes:
        parameters, buffers: of the model.
        optimizer: its state.
        average: the moving average of the parameters.
        window: of gradient accumulation: sums, and a copy of the buffers.
        other: counts and sums.
        gradients: of the trained parameters; while a step runs.
        step: the most that is alive in an eager step: state, batch, activations, gradients and the next state. None
            where that is not known.
    """

    parameters: int
    buffers: int
    optimizer: int
    average: int
    window: int
    other: int
    gradients: int
    step: int | None = None

    @property
    def state(self) -> int:
        """All of the state."""
        return self.parameters + self.buffers + self.optimizer + self.average + self.window + self.other


@dataclass(frozen=True)
class ModelSummary:
    """A model, layer by layer; of a state also what an update takes.

    Attributes:
        layers: all of them, the model itself first.
        parameters: numbers in the model.
        trainable: those that are trained.
        nbytes: bytes of the parameters and buffers.
        flops: operations of the matrix products, convolutions and attention: of an update with all its micro-batches
            for a state, else of a forward pass. None where they are not known.
        memory: of a state; None for a model.
        problem: why outputs, operations and the step's memory are not known; "" if they are.
        depth: of the layers that are shown.
    """

    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    nbytes: int
    flops: int | None = None
    memory: StateMemory | None = None
    problem: str = ""
    depth: int = DEPTH

    def __str__(self) -> str:
        return "\n".join(self.lines())

    __repr__ = __str__

    def lines(self) -> Iterator[str]:
        """A table of the layers, and what they come to."""
        yield from _table(self.layers, self.depth)
        yield ""
        facts = {"parameters": f"{self.parameters:,}"}
        if self.trainable != self.parameters:
            facts["parameters"] += f", {self.trainable:,} of them trainable"
        facts |= {} if self.memory is not None else {"size": size(self.nbytes)}
        if self.flops is not None:
            facts["operations"] = f"{operations(self.flops)} {'a forward pass' if self.memory is None else 'an update'}"
        facts |= {} if self.memory is None else memory_facts(self.memory)
        width = max(map(len, facts))
        yield from (f"{name:{width}}  {value}" for name, value in facts.items())
        if self.problem:
            yield f"Outputs, operations and the memory of a step are not known: {self.problem}"

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        values = {name: value for name, value in asdict(self).items() if name != "depth"}
        if self.memory is not None:
            values["memory"]["state"] = self.memory.state
        return values


def model_summary(
    model: nn.Module | TrainState, batch: Any = None, *, depth: int = DEPTH, micro_batch: int | None = None
) -> ModelSummary:
    """Summarise a model, or the model of a state and its training. Nothing is computed or allocated.

    The model runs on tensors that have shapes and no values (torch's fake tensors). A model whose code asks for values
    is summarised without outputs and operations, and the summary says why.

    Args:
        model: any module, lazy ones and those on the meta device too; or a state. It is not changed.
        batch: for a state, a batch as its objective takes it. For a module, its inputs: a tensor, a tuple of
            arguments, or a mapping of keyword arguments. None: no outputs, operations and memory of a step.
        depth: the layers to show: 1 for those of the model itself, 2 for those in them too, and so on.
        micro_batch: of `fit`: the examples in one pass, for the memory of a step.

    Raises:
        TypeError: `model` is neither.
        ValueError: `depth` is not a natural number.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> summary = model_summary(net, torch.ones(16, 8))  # ft.model_summary
        >>> print(summary)
        layer       type        output   parameters
        Sequential              [16, 2]          46
          0         Linear      [16, 4]          36
          1         ReLU        [16, 4]           0
          2         Linear      [16, 2]          10
        <BLANKLINE>
        parameters  46
        size        184 B
        operations  1.28 kFLOP a forward pass
    """
    if not is_integer(depth, 0):
        raise ValueError(f"depth must be a whole number, 0 or more; got {depth!r}")
    if isinstance(model, TrainState):
        found = _of_state(model, batch, micro_batch)
    elif isinstance(model, nn.Module):
        found = _of_module(model, batch)
    else:
        raise TypeError(f"model_summary takes a module or a TrainState, got {type(model).__name__}")
    return replace(found, depth=depth)


def state_memory(state: TrainState) -> StateMemory:
    """What a state takes, by its parts.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(nn.Linear(8, 4), ft.regression(), ft.optim.adam(0.1), ema_decay=0.9)
        >>> memory = state_memory(state)
        >>> memory.parameters, memory.optimizer > 2 * memory.parameters, memory.gradients
        (144, True, 144)
    """
    parts = {
        "parameters": state.params,
        "buffers": state.buffers,
        "optimizer": state.opt_state,
        "average": state.ema,
        "window": state.accumulator,
    }
    sizes = {name: nbytes(part) for name, part in parts.items()}
    gradients = nbytes({name: state.params[name] for name in state.recipe.network.trainable})
    return StateMemory(**sizes, other=nbytes(state) - sum(sizes.values()), gradients=gradients)


def memory_facts(memory: StateMemory) -> dict[str, str]:
    """The parts of a state, and what a step takes, in words.

    Example:
        >>> memory_facts(StateMemory(4000, 0, 8000, 0, 0, 100, 4000, 20_000))
        {'state': '12.1 kB: parameters 4.0 kB, optimizer 8.0 kB', 'step': 'gradients 4.0 kB; at most 20.0 kB ...'}
    """
    names = {"parameters": "parameters", "buffers": "buffers", "optimizer": "optimizer"}
    names |= {"average": "moving average", "window": "accumulation"}
    parts = [f"{text} {size(getattr(memory, name))}" for name, text in names.items() if getattr(memory, name)]
    step = f"gradients {size(memory.gradients)}"
    if memory.step is not None:
        step += f"; at most {size(memory.step)} with state and activations, not compiled (estimate)"
    return {"state": f"{size(memory.state)}: {', '.join(parts)}", "step": step}


def _of_state(state: TrainState, batch: Any, micro_batch: int | None) -> ModelSummary:
    recipe, memory = state.recipe, state_memory(state)
    outputs, flops, problem = None, None, ""
    if batch is not None:
        try:
            with without_values() as like, recipe.network.put_back():
                shapes = like(state), to_device(like(batch), state.device)
                outputs = _outputs_of(*shapes)
                flops, step = _step(*shapes, micro_batch)
                memory = replace(memory, step=step)
        except Exception as error:
            problem = _reason(error)
    modules = list(recipe.network.given())
    trainable = sum(state.params[name].numel() for name in recipe.network.trainable)
    total = sum(parameter.numel() for parameter in state.params.values())
    size = memory.parameters + memory.buffers
    return ModelSummary(layers_of(modules, outputs), total, trainable, size, flops, memory, problem)


def _outputs_of(state: TrainState, batch: Any) -> Outputs:
    """What the modules give out in a forward pass of training."""
    outputs, batch = Outputs(), cast_floating(batch, state.recipe.param_dtype)
    with torch.no_grad(), noted(state.recipe.network.running(), outputs):
        run_objective(state, state.params, state.buffers, batch, training=True)
    return outputs


def _step(state: TrainState, batch: Any, micro_batch: int | None) -> tuple[int, int]:
    """Operations of an update, and the most memory that is alive in a step."""
    run: Runner = eager if micro_batch is None else InParts(eager, micro_batch, state.recipe.objective)
    accumulate = state.recipe.accumulate
    flops = 0 if accumulate == 1 else (accumulate - 1) * count_flops(state, batch)
    memory = LiveMemory()
    memory.count(tensors((state, batch)))
    with memory:
        train_step(state, batch, end_window=True, run=run)
    return flops + count_flops(state, batch, end_window=True), memory.peak


def _of_module(model: nn.Module, inputs: Any) -> ModelSummary:
    model = without_compilers(model)
    outputs, flops, problem = None, None, ""
    if inputs is not None:
        try:
            model = _initialised(model, inputs)
            outputs, flops = _forward(model, inputs)
        except Exception as error:
            problem = _reason(error)
    named = [p for p in model.parameters() if not nn.parameter.is_lazy(p)]
    total = sum(p.numel() for p in named)
    trainable = sum(p.numel() for p in named if p.requires_grad)
    size = nbytes([*named, *(b for b in model.buffers() if not nn.parameter.is_lazy(b))])
    modules = list(model.named_modules())
    return ModelSummary(layers_of(modules, outputs), total, trainable, size, flops, None, problem)


def _forward(model: nn.Module, inputs: Any) -> tuple[Outputs, int]:
    """What the modules give out, and the operations, of a forward pass in the model's mode."""
    from torch.utils.flop_counter import FlopCounterMode

    network, outputs = Network(model), Outputs()
    device = _device(model, inputs)
    with without_values() as like, torch.no_grad():

        def placed(tensor: Any) -> Any:
            return torch.empty_like(tensor, device=device) if isinstance(tensor, Tensor) else tensor

        params, buffers = (tree_map(placed, dict(named)) for named in (model.named_parameters(), model.named_buffers()))
        given = tree_map(placed, like(inputs))
        with noted(network.running(), outputs), FlopCounterMode(display=False) as counter:
            network.apply(_call, params, buffers, given, training=model.training)
    return outputs, counter.get_total_flops()


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def _device(model: nn.Module, inputs: Any) -> torch.device:
    """Where the model is; the inputs', if it is nowhere yet."""
    places = [tensor.device for tensor in (*model.parameters(), *model.buffers(), *tensors(inputs))]
    return next((place for place in places if place.type != "meta"), torch.device("cpu"))


def _initialised(model: nn.Module, inputs: Any) -> nn.Module:
    """The model; of a lazy one, a copy without values whose parameters have their shapes."""
    if not any(nn.parameter.is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        return model
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        memo[id(tensor)] = _on_meta(tensor)
    copy = deep_copy(model, memo)
    with torch.no_grad(), torch.device("meta"):
        _call(copy, tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, inputs))
    return copy


def _on_meta(tensor: Any) -> Any:
    if nn.parameter.is_lazy(tensor):
        kind: Any = type(tensor)
        return kind(requires_grad=tensor.requires_grad, device="meta", dtype=tensor.dtype)
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _reason(error: Exception) -> str:
    """Why a model did not run without values."""
    line = users_line(error)
    first = (str(error) or type(error).__name__).strip().splitlines()[0]
    where = f" at {line}" if line else ""
    return f"the model does not run on tensors without values. It stopped{where} ({type(error).__name__}: {first})"


def _table(layers: tuple[Layer, ...], depth: int) -> Iterator[str]:
    shown = [layer for layer in layers if layer.depth <= depth]
    rows = [["layer", "type", "output", "parameters", "trainable", ""]]
    rows += [[*_cells(layer), _note(layer)] for layer in shown]
    if all(layer.parameters == layer.trainable for layer in shown):
        rows = [[*row[:4], row[5]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:3], widths)]
        right = [cell.rjust(width) for cell, width in zip(row[3:-1], widths[3:])]
        yield "  ".join([*left, *right, row[-1]]).rstrip()


def _cells(layer: Layer) -> list[str]:
    name = f"{'  ' * layer.depth}{layer.name}" if layer.path else layer.kind
    kind = layer.kind if layer.path else ""
    return [name, kind, layer.output, f"{layer.parameters:,}", f"{layer.trainable:,}"]


def _note(layer: Layer) -> str:
    notes = [f"tied to {', '.join(layer.tied)}"] if layer.tied else []
    if layer.calls is not None and layer.calls != 1:
        notes.append("not called" if layer.calls == 0 else f"called {layer.calls} times")
    return "; ".join(notes)
