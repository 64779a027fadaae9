"""What is wrong with a batch that a step could not compute with. Asked after an error only, so it costs no time.

Objectives that take `(inputs, targets, weight)` need tensors; torch's own error names one operation, not the batch.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from functrain.foundation.errors import BatchError, TracingError
from functrain.foundation.trees import leaves_with_paths
from functrain.objectives.batch import Parts, described, unpack
from functrain.objectives.supervised import takes_weight

_ALLOWED = (
    "Allowed are (inputs, targets), (inputs, targets, weight), a mapping with these keys, or one with 'labels' beside "
    "the model's arguments; each part is a tensor, or a tuple, list or mapping of tensors"
)
_OF_KIND = (TypeError, AttributeError, TracingError)  # what a value of the wrong kind leads to
_OF_FORM = (*_OF_KIND, ValueError, RuntimeError, IndexError)


def raise_explained(error: Exception, batch: Any, objective: Callable[..., Any]) -> NoReturn:
    """Raise the error of a step; in its place what is wrong with the batch, if that is so.

    Args:
        error: what the step raised.
        batch: what it was given.
        objective: the state's. One that takes batches of its own form knows best what is wrong.

    Raises:
        BatchError: the batch cannot be what the objective takes.
    """
    try:
        parts = unpack(batch) if takes_weight(objective) else None
    except TypeError:
        parts = None  # the error says so
    if parts is None or (fault := _fault(error, parts)) is None:
        raise error
    raise BatchError(f"{fault}. The batch is {described(batch)}. {_ALLOWED}. It failed with {_first(error)}") from error


def raise_explained_of_inputs(error: Exception, inputs: Any, objective: Callable[..., Any]) -> NoReturn:
    """The same where only the inputs of a batch are used.

    Raises:
        BatchError: the inputs cannot be what the model takes.
    """
    fault = _fault(error, Parts(inputs, (), None)) if takes_weight(objective) else None
    if fault is None:
        raise error
    raise BatchError(f"{fault}. The inputs are {described(inputs)}. It failed with {_first(error)}") from error


def _fault(error: Exception, parts: Parts) -> str | None:
    """The first thing in a batch that an objective of tensors cannot take, and what to do."""
    if type(error) not in _OF_FORM:  # not those that derive from them: memory, errors that name a module
        return None
    if parts.inputs is None:
        return "the batch's inputs are None. Give the tensor that the model takes"
    if parts.targets is None:
        return (
            "the objective needs targets, and the batch's are None. Give (inputs, targets); for data without targets "
            "write an objective of your own, (model, batch) -> Loss"
        )
    for name, part in zip(Parts._fields, parts):
        for path, leaf in () if part is None else leaves_with_paths(part):
            where = f"the batch's {name}, at {path!r}," if path else f"the batch's {name}"
            if not isinstance(leaf, Tensor) and (name != "inputs" or type(error) in _OF_KIND):
                return f"{where} hold {_kind(leaf)}, which is no tensor. {_advice(leaf)}"
            if isinstance(leaf, Tensor) and not leaf.ndim and name == "targets":
                return f"{where} are a 0-d tensor. Give a row for each example"
    return _fault_of_list(error, parts.inputs)


def _fault_of_list(error: Exception, inputs: Any) -> str | None:
    if not isinstance(inputs, (tuple, list)) or type(error) not in _OF_KIND:
        return None
    if not any(isinstance(part, (tuple, list)) for part in inputs) and "argument" not in str(error):
        return None
    count = f"{len(inputs)} argument{'' if len(inputs) == 1 else 's'}"
    return (
        f"the batch's inputs are a {type(inputs).__name__}, which the model gets as {count}. If it holds the examples, "
        "put them into one tensor (torch.stack; functrain.data.PaddedCollate for unequal lengths). A model that takes "
        "lists trains with model_loss() or with an objective of your own"
    )


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _kind(leaf: Any) -> str:
    if isinstance(leaf, np.ndarray):
        return f"a NumPy array of {leaf.dtype}"
    kind = type(leaf).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind} ({repr(leaf)[:40]})"


def _advice(leaf: Any) -> str:
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc":
        return "fit makes tensors of arrays; for a step use functrain.data.to_device(batch, device)"
    if isinstance(leaf, (str, bytes)):
        return (
            "Make numbers of texts in the data set or in collate_fn (a tokenizer, class names to indices), or leave "
            "them out there"
        )
    return "Make a tensor of it in the data set or in collate_fn, or leave it out there"
