"""What a batch looks like.

| a batch | inputs | targets |
|---|---|---|
| `(inputs, targets)` or `(inputs, targets, weight)` | the first | the second |
| a mapping with the keys "inputs", "targets" and, optionally, "weight" | under "inputs" | under "targets" |
| a mapping with the key "labels" and, optionally, "weight" | all other keys, the model's arguments | under "labels" |

`weight`, floating `[B]`, says how much each example counts; an example of weight zero (padding)
contributes nothing to the loss or to a metric. A mapping is a `dict` or any other, such as a tokenizer's output.
"""

import copy
from collections import UserDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from functrain.foundation.containers import objects_in, register_containers
from functrain.foundation.trees import leaves


class Parts(NamedTuple):
    """The parts of a batch."""

    inputs: Any
    targets: Any
    weight: Tensor | None


def unpack(batch: Any) -> Parts:
    """Take a batch apart.

    Raises:
        TypeError: if it is neither a tuple or list of two or three nor a mapping with the known keys.

    Example:
        >>> unpack(("x", "y"))
        Parts(inputs='x', targets='y', weight=None)
    """
    if type(batch) is tuple and len(batch) == 3:
        return Parts(*batch)  # the usual case, at each step
    if isinstance(batch, Mapping):
        if "inputs" in batch and "targets" in batch:
            return Parts(batch["inputs"], batch["targets"], batch.get("weight"))
        if has_labels(batch):
            inputs = {name: part for name, part in batch.items() if name not in ("labels", "weight")}
            return Parts(inputs, batch["labels"], batch.get("weight"))
        raise TypeError(
            "a batch given as a mapping needs the keys 'inputs' and 'targets', or 'labels' beside the model's "
            f"arguments; got {described(batch)}"
        )
    if isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
        return Parts(*batch, *(None,) * (3 - len(batch)))
    raise TypeError(
        "a batch is (inputs, targets), (inputs, targets, weight) or a mapping with these keys; got "
        f"{described(batch)}. Write an objective of your own, (model, batch) -> Loss, for other batches"
    )


def has_labels(batch: Any) -> bool:
    """Whether a batch is a mapping of the model's arguments with the targets under "labels".

    Example:
        >>> has_labels({"input_ids": 1, "labels": 2}), has_labels({"inputs": 1, "targets": 2})
        (True, False)
    """
    return isinstance(batch, Mapping) and "labels" in batch and not ("inputs" in batch and "targets" in batch)


def with_weight(batch: Any, weight: Tensor) -> Any:
    """The same batch with this weight in place of its own, if it had one.

    Example:
        >>> with_weight(("x", "y"), "w")
        ('x', 'y', 'w')
    """
    parts = unpack(batch)
    if isinstance(batch, Mapping):
        return replaced(batch, "weight", weight)
    return (parts.inputs, parts.targets, weight)


def replaced(batch: Mapping[str, Any], key: str, value: Any) -> Any:
    """A copy of a mapping with another value at a key, of the same class if it is a `dict` or a `UserDict`.

    Example:
        >>> replaced({"labels": 1, "x": 2}, "labels", 3)
        {'labels': 3, 'x': 2}
    """
    copied = copy.copy(batch) if isinstance(batch, (dict, UserDict)) else dict(batch)
    copied[key] = value
    return copied


def batch_length(batch: Any) -> int:
    """The number of rows of a batch, or of a part of one: the first dimension of its first tensor that has one.

    Raises:
        TypeError: if there is no such tensor.

    Example:
        >>> import torch
        >>> batch_length(((torch.zeros(3, 2), torch.zeros(3)), torch.zeros(3)))
        3
    """
    first = batch[0] if type(batch) in (tuple, list) and batch else None
    if isinstance(first, Tensor) and (shape := first.shape):
        return shape[0]  # the usual case, at each step, without flattening
    register_containers(batch)
    for leaf in leaves(batch):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return leaf.shape[0]
    raise TypeError(
        f"a batch needs a tensor with a row for each example, got {described(batch)} without one; collate the samples "
        "to tensors"
    )


def refuse_objects(batch: Any, what: str) -> None:
    """Refuse a batch with an object in it, such as a graph, whose tensors need not have a row for each example.

    Args:
        batch: any batch.
        what: who wants to cut or extend it, for the message.

    Raises:
        TypeError: if there is such an object.
    """
    for found in objects_in(batch):
        raise TypeError(
            f"{what} needs batches of tensors with a row for each example, in tuples, lists or mappings; this batch "
            f"holds a {type(found).__name__}, which cannot be cut into examples"
        )


def described(batch: Any) -> str:
    """The form of a batch in words: its parts with their types and shapes.

    Example:
        >>> import torch
        >>> described((torch.zeros(4, 3), ["a", "b"])), described(None)
        ('a tuple of 2 (tensor [4, 3] float32, list of 2)', 'None')
    """
    if isinstance(batch, Mapping):
        items = [f"{name!r}: {_form(part)}" for name, part in batch.items()]
        return f"a {type(batch).__name__} of {len(batch)} ({_listed(items)})"
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)} ({_listed([_form(part) for part in batch])})"
    return "None" if batch is None else f"a {_form(batch)}"


def _form(part: Any) -> str:
    if isinstance(part, Tensor):
        return f"tensor {list(part.shape)} {str(part.dtype).removeprefix('torch.')}"
    if part is None or isinstance(part, (bool, int, float)):
        return repr(part)
    sized = isinstance(part, (tuple, list, set, Mapping))
    return f"{type(part).__name__} of {len(part)}" if sized else type(part).__name__


def _listed(items: list[str], most: int = 8) -> str:
    return ", ".join(items[:most] + ([f"and {len(items) - most} more"] if len(items) > most else []))
