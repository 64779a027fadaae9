"""Vectors in the space of the trainable parameters: dictionaries, and one flat tensor."""

from typing import Any

import torch
from torch import Tensor

from functrain.foundation.keys import generator
from functrain.step.state import Params, TrainState


def trainable_params(state: TrainState) -> Params:
    """The trainable parameters by name, in the network's order."""
    return {name: state.params[name] for name in state.recipe.network.trainable}


def flat(tree: Params) -> Tensor:
    """All of it as one vector, `[n]`."""
    return torch.cat([leaf.reshape(-1) for leaf in tree.values()])


def unflat(vector: Tensor, like: Params) -> Params:
    """The parts of a vector `[n]` by name, in the shapes and dtypes of `like`.

    Example:
        >>> unflat(torch.arange(3.0), {"a": torch.zeros(1, 2), "b": torch.zeros(())})
        {'a': tensor([[0., 1.]]), 'b': tensor(2.)}
    """
    parts = vector.split([leaf.numel() for leaf in like.values()])
    return {name: part.view(leaf.shape).to(leaf.dtype) for (name, leaf), part in zip(like.items(), parts)}


def dot(left: Params, right: Params) -> Tensor:
    """The inner product, 0-d float64."""
    return torch.stack([(left[name].double() * right[name].double()).sum() for name in left]).sum()


def random_signs(key: int, like: Params) -> Params:
    """1 or -1 with equal probability in each element."""
    source = generator(key)
    return {
        name: (torch.randint(2, leaf.shape, generator=source) * 2 - 1).to(leaf.device, leaf.dtype)
        for name, leaf in like.items()
    }


def checked_vector(vector: Any, like: Params) -> Params:
    """A vector given by a user, in the order of `like`.

    Raises:
        TypeError: it is no mapping.
        ValueError: names or shapes are not those of the trainable parameters.
    """
    if not isinstance(vector, dict):
        raise TypeError(
            f"vector must be a dictionary of name -> tensor like the parameters, got {type(vector).__name__}"
        )
    if set(vector) != set(like):
        raise ValueError(
            f"vector must have a tensor for each trainable parameter ({', '.join(like)}); got {', '.join(vector)}"
        )
    for name, leaf in like.items():
        if vector[name].shape != leaf.shape:
            raise ValueError(
                f"vector[{name!r}] must have the parameter's shape {list(leaf.shape)}; got {list(vector[name].shape)}"
            )
    return {name: vector[name].detach().to(leaf.device, leaf.dtype) for name, leaf in like.items()}
