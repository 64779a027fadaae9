"""Whether an optimizer computes each element of a parameter from that element alone, so that it may work on a shard."""

import re
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.torch_internals import operators_of
from functrain.foundation.trees import tree_map
from functrain.optim import Optimizer
from functrain.step.state import Params

# Copies, and new tensors that depend on the form of others.
_COPIES = re.compile(
    r"(clone|detach|detach_|copy_|_to_copy|lift_fresh|alias|(zeros|ones|full|empty)_like|scalar_tensor)$"
)
_REDUCTIONS = re.compile(r"_foreach_(norm|max|powsum)$")


def is_elementwise(optimizer: Optimizer, params: Params) -> bool:
    """Whether it is, as far as the operators of an update tell: any other than those on single elements says no.

    Args:
        optimizer: any.
        params: parameters of its names and dimensions; their sizes do not matter.

    Example:
        >>> from functrain import optim
        >>> params = {"w": torch.zeros(4, 4)}
        >>> [is_elementwise(each(0.1), params) for each in (optim.adamw, optim.sgd, optim.muon, optim.adafactor)]
        [True, True, False, False]
    """
    small = {name: torch.ones([2] * leaf.ndim, dtype=leaf.dtype) for name, leaf in params.items()}
    grads = tree_map(torch.ones_like, small)
    state = optimizer.init(small)
    found = operators_of(lambda: optimizer.update(grads, state, small))
    return found is not None and all(_is_elementwise(*each) for each in found)


def _is_elementwise(operator: Any, tensors: tuple[Tensor, ...]) -> bool:
    name = operator.name().removeprefix("aten::").partition(".")[0]
    if torch.Tag.nondeterministic_seeded in operator.tags:
        return False
    if all(tensor.ndim == 0 for tensor in tensors):  # counts and rates; or a tensor made of numbers alone
        return True
    if name.startswith("_foreach_"):
        return not _REDUCTIONS.match(name)
    return torch.Tag.pointwise in operator.tags or bool(_COPIES.match(name))
