"""What the operators of one small update tell of an optimizer: whether it may work on a shard, and whether it draws."""

from typing import Any

import torch
from torch import Tensor

from functrain.foundation.torch_internals import draws, is_by_element, operators_of
from functrain.foundation.trees import tree_map
from functrain.optim import Optimizer
from functrain.step.state import Params


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
    found = _operators(optimizer, params)
    return found is not None and all(is_by_element(*each) for each in found)


def draws_at_random(optimizer: Optimizer, params: Params) -> bool:
    """Whether an update draws random numbers, as far as its operators tell.

    Args:
        optimizer, params: as of `is_elementwise`.

    Example:
        >>> from functrain import optim
        >>> noise = optim.stateless(lambda updates, _: {name: torch.randn_like(u) for name, u in updates.items()})
        >>> [draws_at_random(each, {"w": torch.zeros(4)}) for each in (noise, optim.adamw(0.1))]
        [True, False]
    """
    found = _operators(optimizer, params)
    return found is None or any(draws(operator) for operator, _ in found)


def _operators(optimizer: Optimizer, params: Params) -> list[tuple[Any, tuple[Tensor, ...]]] | None:
    small = {name: torch.ones([2] * leaf.ndim, dtype=leaf.dtype) for name, leaf in params.items()}
    grads = tree_map(torch.ones_like, small)
    state = optimizer.init(small)
    return operators_of(lambda: optimizer.update(grads, state, small))
