"""Transforms for some parameters only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree
from functrain.optim.base import Optimizer, require_optimizer
from functrain.optim.foreach import aligned_leaves

Mask = Callable[[str, torch.Tensor], bool] | Tree


@remembered
def masked(transform: Optimizer, mask: Mask) -> Optimizer:
    """Apply a transform where `mask` is true; elsewhere updates pass through unchanged and no state is kept.

    Args:
        transform: sees a tree in which the leaves that are masked out are `None`, an empty subtree.
        mask: a predicate `(path, parameter) -> bool`, with paths as `foundation.trees.paths` names them,
            which may look at shape and dtype but not at values; or a tree of bools of the parameters'
            structure.

    Raises:
        TypeError: `transform` is no `Optimizer`, or a leaf of a tree mask is not a bool.
        ValueError: a tree mask has not the structure of the parameters.

    Example:
        >>> from functrain.optim.parts import scale
        >>> params = {"a": torch.tensor(1.0), "b": torch.tensor(1.0)}
        >>> masked(scale(0.0), lambda path, parameter: path == "a").update(params, (), params)[0]
        {'a': tensor(0.), 'b': tensor(1.)}
    """

    require_optimizer("masked", transform)

    def init(params: Tree) -> Tree:
        return transform.init(select(params, _decisions(mask, params)))

    def update(updates: Tree, state: Tree, params: Tree) -> tuple[Tree, Tree]:
        decisions = _decisions(mask, params)
        spec, (old, _) = aligned_leaves(updates=updates, params=params)
        changed, new_state = transform.update(select(updates, decisions), state, select(params, decisions))
        replacements = iter(trees.leaves(changed))
        merged = [next(replacements) if chosen else leaf for leaf, chosen in zip(old, decisions)]
        return trees.unflatten(spec, merged), new_state

    return Optimizer(init, update)


def no_decay_1d(_path: str, parameter: torch.Tensor) -> bool:
    """The mask that spares biases, norms and other parameters of fewer than two dimensions from weight decay.

    Example:
        >>> no_decay_1d("linear.weight", torch.zeros(3, 4)), no_decay_1d("linear.bias", torch.zeros(3))
        (True, False)
    """
    return parameter.ndim >= 2


def _decisions(mask: Mask, params: Tree) -> list[bool]:
    if callable(mask):
        return [bool(mask(path, leaf)) for path, leaf in trees.leaves_with_paths(params)]
    if not isinstance(mask, Mapping | Sequence) or isinstance(mask, str):
        raise TypeError(
            f"a mask is a function (path, parameter) -> bool, or a tree of True and False like the parameters; got "
            f"{mask!r}. By patterns of names: optim.partition({{'head.*': optimizer, '*': optim.freeze()}})"
        )
    _, (_, decisions) = aligned_leaves(params=params, mask=mask)
    for path, decision in zip(trees.paths(params), decisions):
        if not isinstance(decision, bool):
            raise TypeError(f"a mask has leaves True and False, got {decision!r} for parameter {path!r}")
    return decisions


def select(tree: Tree, decisions: list[bool]) -> Any:
    """The tree with `None`, an empty subtree, for every leaf whose decision is False.

    Example:
        >>> select({"a": 1, "b": 2}, [True, False])
        {'a': 1, 'b': None}
    """
    leaves, spec = trees.flatten(tree)
    return trees.unflatten(spec, [leaf if chosen else None for leaf, chosen in zip(leaves, decisions)])
