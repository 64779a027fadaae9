"""Norms and clipping of gradients."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.torch_internals import is_eager, is_rehearsed
from functrain.foundation.trees import Tree
from functrain.optim.base import Optimizer, stateless
from functrain.optim.checks import require_positive
from functrain.optim.foreach import foreach, sums_of_squares

# Keeps the quotient finite for a zero norm; torch.nn.utils.clip_grad_norm_ has the same constant.
NORM_EPS = 1e-6

# A power of two, exact to multiply by: the squares of the largest float32 numbers times it are some 2^96.
SMALL = 2.0**-80


def global_norm(tree: Tree) -> torch.Tensor:
    """Euclidean norm of all leaves as one vector.

    Args:
        tree: tree of floating-point tensors.

    Returns:
        0-d tensor: float64 if any leaf is float64, else float32, in which half-precision leaves are summed
        too; 0 for an empty tree. Squares that overflow float32 do not make it infinite: the norm itself must.

    Example:
        >>> global_norm({"a": torch.tensor([3.0]), "b": torch.tensor(4.0)})
        tensor(5.)
    """
    leaves = trees.leaves(tree)
    if not leaves:
        return torch.zeros(())
    dtype = torch.float64 if any(leaf.dtype == torch.float64 for leaf in leaves) else torch.float32
    if not (is_eager() or is_rehearsed()):
        # In a graph float64 sums cost nothing: the squares are never stored (8 million parameters: 57 ms to 58).
        return torch.stack([leaf.double().square().sum() for leaf in leaves]).sum().sqrt().to(dtype)
    leaves = [leaf.to(dtype) for leaf in leaves]
    norm = _root_of_squares(leaves)
    if dtype == torch.float64 or (norm.is_cpu and not norm.isinf().item()):
        return norm
    # Only an infinite norm is taken again, so that the bits of all others are those of the plain sum.
    return torch.where(norm.isinf(), _root_of_squares([leaf * SMALL for leaf in leaves]) / SMALL, norm)


def _root_of_squares(leaves: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(sums_of_squares(leaves)).sum().sqrt()


def scale_to_norm(tree: Tree, norm: torch.Tensor, max_norm: float) -> Tree:
    """Multiply a tree of the given norm by `min(1, max_norm / (norm + 1e-6))`.

    For callers that need the norm for themselves, too; `clip_by_global_norm` is the transform.

    Args:
        tree: tree of floating-point tensors.
        norm: 0-d tensor, `global_norm(tree)`.
        max_norm: the largest norm allowed, > 0.

    Returns:
        The scaled tree. A norm of NaN or infinity leaves no finite gradients, as in torch: test it before.

    Example:
        >>> scale_to_norm({"w": torch.tensor(8.0)}, torch.tensor(8.0), max_norm=2.0)
        {'w': tensor(2.0000)}
    """
    leaves, spec = trees.flatten(tree)
    factor = (max_norm / (norm + NORM_EPS)).clamp(max=1.0)
    return trees.unflatten(spec, foreach("mul", leaves, factor))


@remembered
def clip_by_global_norm(max_norm: float) -> Optimizer:
    """Scale the updates to a global norm of at most `max_norm`, as torch.nn.utils.clip_grad_norm_ does.

    References:
        Pascanu et al., On the difficulty of training recurrent neural networks, ICML 2013, algorithm 1.

    Example:
        >>> clip_by_global_norm(1.0).update({"w": torch.tensor([30.0, 40.0])}, (), {})[0]
        {'w': tensor([0.6000, 0.8000])}
    """
    require_positive("max_norm", max_norm)
    return stateless(lambda updates, _params: scale_to_norm(updates, global_norm(updates), max_norm))


@remembered
def clip_by_value(value: float) -> Optimizer:
    """Clamp every element of the updates to [-value, value].

    Example:
        >>> clip_by_value(1.0).update({"w": torch.tensor([-3.0, 0.5])}, (), {})[0]
        {'w': tensor([-1.0000,  0.5000])}
    """
    require_positive("value", value)

    def update(updates: Tree, _params: Tree) -> Tree:
        leaves, spec = trees.flatten(updates)
        return trees.unflatten(spec, foreach("clamp_min", foreach("clamp_max", leaves, value), -value))

    return stateless(update)
