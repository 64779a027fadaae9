"""Model outputs over a loader."""

from collections.abc import Mapping
from typing import Any

import torch

from functrain.compiler import runner_for
from functrain.data import as_stream, batch_length, pad_batch, to_device
from functrain.foundation.containers import register_containers
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import tree_map
from functrain.objectives.batch import has_labels, unpack
from functrain.objectives.examples import takes_lists
from functrain.objectives.supervised import call
from functrain.objectives.unfit import raise_explained_of_inputs
from functrain.step.execution import Core
from functrain.step.state import TrainState, require_state
from functrain.step.to_module import to_evaluate


def predict(state: TrainState, loader: Any, *, ema: bool = False, compile: bool = False) -> Any:
    """The model's outputs for all examples of a loader, in its order, in evaluation mode.

    Args:
        state: any state; not changed.
        loader: gives batches `(inputs, targets)`, `(inputs, targets, weight)` or mappings with these keys, of which
            the inputs are used; or inputs only: a tensor, a sequence of one, or a mapping of named inputs.
            Make it without shuffling. With an objective that takes lists, such as `model_loss()`, inputs that are a
            list are one argument of the model, with an element for each example, such as images of several sizes.
        ema: use the averaged parameters.
        compile: compile the forward pass first, which pays for long loaders only.

    Returns:
        What the model returns, a tensor or a tree of tensors, concatenated over the examples, on the CPU, in
        the parameters' precision. Where inputs are such a list and the model returns a list with an element for each
        example (boxes), all of them in one list.

    Raises:
        DataError: if the loader gives no batch.
        ValueError: if an output has no row for each example, or `ema` is asked of a state without an average.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 3), ft.regression(), ft.optim.sgd(0.1))
        >>> predict(state, [torch.ones(4, 2), torch.ones(1, 2)][:1]).shape
        Traceback (most recent call last):
        ...
        TypeError: the given loader must be an iterable of batches, got list of examples; ...
        >>> predict(state, (batch for batch in [torch.ones(4, 2), torch.ones(1, 2)])).shape
        torch.Size([5, 3])
    """
    outputs, _ = _collect(state, loader, ema=ema, compile=compile, with_targets=False)
    return outputs


def predict_with_targets(
    state: TrainState, loader: Any, *, ema: bool = False, compile: bool = False
) -> tuple[Any, Any]:
    """As `predict`, with the targets of the same examples: for reports, confusion matrices, calibration.

    Returns:
        Outputs and targets, on the CPU.

    Raises:
        TypeError: if a batch holds inputs only.
    """
    return _collect(state, loader, ema=ema, compile=compile, with_targets=True)


def _collect(state: TrainState, loader: Any, *, ema: bool, compile: bool, with_targets: bool) -> tuple[Any, Any]:
    require_state("predict", state)
    stream = as_stream(loader, fold_in(state.key, "eval"), what="given")
    forward = to_evaluate(state, ema=ema)
    runner = runner_for(compile)
    size, key = (stream.batch_size if stream.kind == "indexed" else None), fold_in(state.key, "predict")
    lists, collected = takes_lists(state.recipe.objective), list[tuple[Any, Any]]()
    try:
        for batch in stream.batches(0):
            inputs, targets = _split(to_device(batch, state.device))
            if with_targets and targets is None:
                raise TypeError("a report needs targets, but the loader gives inputs only")
            in_list = lists and isinstance(inputs, (tuple, list))
            length = len(inputs) if in_list else batch_length(inputs)
            size = size or length
            if compile and length < size and not in_list:  # one shape, one compilation
                inputs = pad_batch((inputs, None), size)[0]
            arguments = (list(inputs),) if in_list else inputs
            try:
                outputs = runner(FORWARD, forward, arguments, key=lambda: key, device=state.device)
            except Exception as error:
                raise_explained_of_inputs(error, inputs, state.recipe.objective)
            if in_list:
                collected.append((_each(outputs, length), _each(targets, length)))
            else:
                collected.append((_rows(outputs, length, batch_length(inputs)), tree_map(_to_cpu, targets)))
    finally:
        stream.close()
    if not collected:
        raise DataError("there is nothing to predict: the loader gave no batch")
    outputs, targets = zip(*collected)
    return _concatenated(outputs), _concatenated(targets)


def _forward(state: TrainState, inputs: Any) -> Any:
    recipe = state.recipe
    mixed = recipe.compute_dtype != recipe.param_dtype
    with torch.autocast(state.device.type, recipe.compute_dtype, enabled=mixed, cache_enabled=False):
        outputs, _ = recipe.network.apply(
            call, state.params, state.buffers, cast_floating(inputs, recipe.param_dtype), training=False
        )
    register_containers(outputs)
    return cast_floating(outputs, recipe.param_dtype)


FORWARD = Core(_forward, "forward", carries_state=False)


def _split(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets; the latter None where a batch is inputs only."""
    if has_labels(batch):
        parts = unpack(batch)
        return parts.inputs, parts.targets
    if isinstance(batch, Mapping):
        return (batch["inputs"], batch.get("targets")) if "inputs" in batch else (batch, None)
    if isinstance(batch, (tuple, list)):
        if len(batch) == 1:
            return batch[0], None
        if len(batch) in (2, 3):
            return batch[0], batch[1]
        raise TypeError(
            f"a batch is (inputs, targets), (inputs, targets, weight), or inputs only; got a {type(batch).__name__} of "
            f"{len(batch)}"
        )
    return batch, None


class _Each(list[Any]):
    """Outputs or targets with an element for each example."""


def _each(values: Any, length: int) -> Any:
    """The outputs or targets of a batch of lists, on the CPU."""
    if isinstance(values, (tuple, list)) and len(values) == length:
        return _Each(tree_map(_to_cpu, list(values)))
    return None if values is None else _rows(values, length, length)


def _rows(outputs: Any, length: int, size: int) -> Any:
    """The real examples' rows of a batch's outputs, on the CPU."""

    def real(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if leaf.ndim == 0 or len(leaf) != size:
            raise ValueError(
                f"predict needs outputs with a row for each of the {size} examples of a batch; the model returned a "
                f"tensor of shape {list(leaf.shape)}"
            )
        return leaf[:length].cpu()

    return tree_map(real, outputs)


def _to_cpu(leaf: Any) -> Any:
    return leaf.cpu() if isinstance(leaf, torch.Tensor) else leaf


def _concatenated(parts: Any) -> Any:
    if isinstance(parts[0], _Each):
        return [value for part in parts for value in part]

    def join(*leaves: Any) -> Any:
        return torch.cat(leaves) if isinstance(leaves[0], torch.Tensor) else list(leaves)

    return tree_map(join, *parts)
