"""Whether an optimizer computes each element of a parameter from that element alone, so that it may work on a shard."""

import torch

from functrain.foundation.torch_internals import is_by_element, operators_of
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
    small = {name: torch.ones([2] * leaf.ndim, dtype=leaf.dtype) for name, leaf in params.items()}
    grads = tree_map(torch.ones_like, small)
    state = optimizer.init(small)
    found = operators_of(lambda: optimizer.update(grads, state, small))
    return found is not None and all(is_by_element(*each) for each in found)
