"""What examples of weight 0 hold, kept out of all that counts.

0 times NaN is NaN, and so is 0 times infinity: what does not count must be replaced before it is computed with, both
for the loss and for the gradient, which passes through each operation of the forward pass once more.
"""

from typing import Any

import torch
from torch import Tensor

from functrain.foundation.dtypes import is_floating
from functrain.foundation.trees import tree_map
from functrain.metrics.ones import are_ones
from functrain.objectives.batch import unpack


def zero_uncounted(tree: Any, weight: Tensor | None) -> Any:
    """A tree with 0 in the rows of its floating-point tensors whose examples have weight 0.

    Args:
        tree: predictions or targets; what has no row for each example stays as it is.
        weight: `[B]`; None: all examples count.

    Example:
        >>> zero_uncounted(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 0.0]))
        tensor([1., 0.])
    """
    if weight is None or weight.ndim != 1 or are_ones(weight):
        return tree
    counted = weight != 0
    return tree_map(lambda leaf: torch.where(_rows(counted, leaf), leaf, 0) if _fits(leaf, weight) else leaf, tree)


def finite_batch(batch: Any) -> Any:
    """A batch with 0 in place of NaN and infinities in examples of weight 0.

    Finite numbers stay, since BatchNorm sees them.

    Args:
        batch: as in `batch.py`; one of another form, or without a weight, stays as it is.

    Example:
        >>> finite_batch((torch.tensor([1.0, float("inf"), 2.0]), None, torch.tensor([1.0, 0.0, 0.0])))[0]
        tensor([1., 0., 2.])
    """
    try:
        weight = unpack(batch).weight
    except TypeError:
        return batch
    if not isinstance(weight, Tensor) or weight.ndim != 1 or are_ones(weight):
        return batch
    counted = weight != 0

    def finite(leaf: Any) -> Any:
        if leaf is weight or not _fits(leaf, weight):
            return leaf
        return torch.where(_rows(counted, leaf) | leaf.isfinite(), leaf, 0)

    return tree_map(finite, batch)


def _fits(leaf: Any, weight: Tensor) -> bool:
    return isinstance(leaf, Tensor) and is_floating(leaf) and leaf.ndim > 0 and len(leaf) == len(weight)


def _rows(counted: Tensor, leaf: Tensor) -> Tensor:
    return counted.view(-1, *[1] * (leaf.ndim - 1))
