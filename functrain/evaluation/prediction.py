"""Model outputs over a loader."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, NamedTuple, NoReturn

import torch

from functrain.compiler import runner_for
from functrain.data import as_stream, batch_length, pad_batch, to_device
from functrain.evaluation.archived import ARCHIVED, ArchivedModel
from functrain.evaluation.forward import FORWARD
from functrain.evaluation.functions import FUNCTION, Function
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import tree_map
from functrain.objectives.batch import has_labels, unpack
from functrain.objectives.examples import takes_lists
from functrain.objectives.unfit import raise_explained_of_inputs
from functrain.step.execution import Core
from functrain.step.passes import Pass
from functrain.step.state import TrainState, require_state
from functrain.step.to_module import to_evaluate

Predictor = TrainState | ArchivedModel | Function


def predict(state: TrainState | ArchivedModel, loader: Any, *, ema: bool = False, compile: bool = False) -> Any:
    """The model's outputs for all examples of a loader, in its order, in evaluation mode.

    Args:
        state: any state, which is not changed; or a model out of an archive (`load_archive`).
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
        ValueError: if an output has no row for each example, `ema` is asked of a state without an average, or `ema` or
            `compile` of an archived model.

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
    state: TrainState | ArchivedModel, loader: Any, *, ema: bool = False, compile: bool = False
) -> tuple[Any, Any]:
    """As `predict`, with the targets of the same examples: for reports, confusion matrices, calibration.

    Returns:
        Outputs and targets, on the CPU.

    Raises:
        TypeError: if a batch holds inputs only.
    """
    return _collect(state, loader, ema=ema, compile=compile, with_targets=True)


class _Model(NamedTuple):
    """What predicts.

    Attributes:
        core, state: computes the outputs, and its first argument.
        key: of the state.
        device: where is computed.
        objective: that the model was trained with; None: not known.
    """

    core: Core
    state: Any
    key: int
    device: torch.device
    objective: Callable[..., Any] | None


def _model(given: Predictor, *, ema: bool, compile: bool) -> _Model:
    if isinstance(given, Function):
        return _Model(FUNCTION, given, 0, given.device, None)
    if isinstance(given, ArchivedModel):
        if ema:
            raise ValueError(
                "ema: an archive holds one set of parameters; 'functrain export --ema' writes the averages"
            )
        if compile:
            raise ValueError("compile: the program in an archive is run as it is")
        return _Model(ARCHIVED, given, given.key, torch.device("cpu"), None)
    require_state("predict", given)
    return _Model(FORWARD, to_evaluate(given, ema=ema), given.key, given.device, given.recipe.objective)


def _collect(
    given: TrainState | ArchivedModel, loader: Any, *, ema: bool, compile: bool, with_targets: bool
) -> tuple[Any, Any]:
    outputs, targets = zip(*answers(given, loader, ema=ema, compile=compile, with_targets=with_targets))
    return _concatenated(outputs), _concatenated(targets)


def answers(
    given: Predictor, loader: Any, *, ema: bool, compile: bool, with_targets: bool, start: int = 0
) -> Generator[tuple[Any, Any]]:
    """The outputs and targets of one batch after another, on the CPU, from batch number `start` on.

    Other arguments and errors as of `predict`.
    """
    found = answers_of_all([given], loader, ema=ema, compile=compile, with_targets=with_targets, start=start)
    with closing(found):
        for (one,) in found:
            yield one


def answers_of_all(
    given: Sequence[Predictor], loader: Any, *, ema: bool, compile: bool, with_targets: bool, start: int = 0
) -> Generator[tuple[tuple[Any, Any], ...]]:
    """As `answers`, of several models: each batch is read once, and all of them get it."""
    models = [_model(one, ema=ema, compile=compile) for one in given]
    stream = as_stream(loader, fold_in(models[0].key, "eval"), what="given")
    size = stream.batch_size if stream.kind == "indexed" else None
    each = [_Answering(model, size, compile=compile, with_targets=with_targets) for model in models]
    empty = not start
    try:
        batches = stream.batches(0, start)
        at_once = stream.at_once if all(model.device.type == "cpu" for model in models) else 1
        for block in iter(lambda: list(islice(batches, at_once)), []):
            empty = False
            yield from zip(*(one(block) for one in each), strict=True)
    finally:
        stream.close()
    if empty:
        raise DataError("there is nothing to predict: the loader gave no batch")


class _Answering:
    """Gives a model batches.

    Args:
        model: predicts.
        size: rows of a padded batch; None: as many as the first one has.
        compile: whether its forward pass is compiled.
        with_targets: whether targets are needed.
    """

    def __init__(self, model: _Model, size: int | None, *, compile: bool, with_targets: bool) -> None:
        key = fold_in(model.key, "predict")
        self._objective = model.objective
        self._prepare = _Preparation(model, size, pads=compile, with_targets=with_targets)
        runner = runner_for(compile and model.core is FORWARD)
        self._forward = Pass(runner, model.core, model.state, lambda: key, model.device, self._explain)

    def __call__(self, block: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Outputs and targets of some batches."""
        prepared = list(map(self._prepare, block))
        return list(map(_Prepared.answer, prepared, self._forward.each([one.arguments for one in prepared])))

    def _explain(self, error: Exception, inputs: Any) -> NoReturn:
        if self._objective is None:
            raise error
        alone = type(inputs) is tuple and len(inputs) == 1
        raise_explained_of_inputs(error, inputs[0] if alone else inputs, self._objective)


class _Prepared(NamedTuple):
    """A batch, ready for the model.

    Attributes:
        arguments: of the model, padded.
        targets: not padded; None: not given.
        examples: how many there are.
        in_list: whether the inputs are a list with an element for each.
    """

    arguments: Any
    targets: Any
    examples: int
    in_list: bool

    def answer(self, outputs: Any) -> tuple[Any, Any]:
        """Outputs and targets of the real examples, on the CPU."""
        if self.in_list:
            return _each(outputs, self.examples), _each(self.targets, self.examples)
        rows = batch_length(self.arguments)
        return _rows(outputs, self.examples, rows), tree_map(_to_cpu, self.targets)


class _Preparation:
    """Prepares batches for the model.

    Args:
        model: predicts.
        size: rows of a padded batch; None: as many as the first one has.
        pads: whether a smaller batch is padded: one shape, one compilation.
        with_targets: whether targets are needed.
    """

    def __init__(self, model: _Model, size: int | None, *, pads: bool, with_targets: bool) -> None:
        self._device = model.device
        self._lists = model.objective is not None and takes_lists(model.objective)
        self._size, self._pads, self._with_targets = size, pads, with_targets

    def __call__(self, batch: Any) -> _Prepared:
        inputs, targets = _split(to_device(batch, self._device))
        if not self._with_targets:
            targets = None
        elif targets is None:
            raise TypeError("a report needs targets, but the loader gives inputs only")
        if self._lists and isinstance(inputs, (tuple, list)):
            return _Prepared((list(inputs),), targets, len(inputs), in_list=True)
        length = batch_length(inputs)
        self._size = self._size or length
        if self._pads and length < self._size:
            inputs = pad_batch((inputs, None), self._size)[0]
        # a tuple of tensors is what a compiled program's form is found for in the least time
        arguments = (inputs,) if type(inputs) is torch.Tensor else inputs
        return _Prepared(arguments, targets, length, in_list=False)


def inputs_of(batch: Any) -> Any:
    """What a batch gives to the model.

    Raises:
        TypeError: it is no batch.
    """
    return _split(batch)[0]


def targets_of(batch: Any) -> Any:
    """The targets of a batch; None where it is inputs only.

    Raises:
        TypeError: it is no batch.
    """
    return _split(batch)[1]


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

    return real(outputs) if type(outputs) is torch.Tensor else tree_map(real, outputs)


def _to_cpu(leaf: Any) -> Any:
    return leaf.cpu() if isinstance(leaf, torch.Tensor) else leaf


def _concatenated(parts: Any) -> Any:
    if isinstance(parts[0], _Each):
        return [value for part in parts for value in part]

    def join(*leaves: Any) -> Any:
        return torch.cat(leaves) if isinstance(leaves[0], torch.Tensor) else list(leaves)

    return tree_map(join, *parts)
