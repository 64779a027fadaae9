"""What a batch looks like. Imports foundation and torch only.

A batch is `(inputs, targets)`, `(inputs, targets, weight)`, or a mapping with the keys "inputs",
"targets" and, optionally, "weight". `weight`, floating `[B]`, says how much each example counts;
an example of weight zero (padding) contributes nothing to the loss or to a metric.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

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
    if isinstance(batch, Mapping):
        if {"inputs", "targets"} <= batch.keys():
            return Parts(batch["inputs"], batch["targets"], batch.get("weight"))
        raise TypeError(
            f"a batch given as a mapping needs the keys 'inputs' and 'targets', got {', '.join(map(repr, batch))}"
        )
    if isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
        return Parts(*batch, *(None,) * (3 - len(batch)))
    raise TypeError(
        "a batch is (inputs, targets), (inputs, targets, weight) or a mapping with these keys; got "
        f"{_describe(batch)}. Write an objective of your own, (model, batch) -> Loss, for other batches"
    )


def with_weight(batch: Any, weight: Tensor) -> Any:
    """The same batch with this weight in place of its own, if it had one.

    Example:
        >>> with_weight(("x", "y"), "w")
        ('x', 'y', 'w')
    """
    parts = unpack(batch)
    if isinstance(batch, Mapping):
        return {**batch, "weight": weight}
    return (parts.inputs, parts.targets, weight)


def batch_length(batch: Any) -> int:
    """The leading dimension of the first tensor in a batch, or in a part of one.

    Raises:
        TypeError: if there is no tensor with a leading dimension.

    Example:
        >>> import torch
        >>> batch_length(((torch.zeros(3, 2), torch.zeros(3)), torch.zeros(3)))
        3
    """
    first = batch[0] if type(batch) in (tuple, list) and batch else None
    if isinstance(first, Tensor) and (shape := first.shape):
        return shape[0]  # the usual case, at each step, without flattening
    for leaf in leaves(batch):
        if getattr(leaf, "ndim", 0):
            return len(leaf)
    raise TypeError(f"a batch needs a tensor with a leading dimension, got {_describe(batch)} without one")


def _describe(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"
