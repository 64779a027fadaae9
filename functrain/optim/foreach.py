"""Arithmetic on lists of leaves in torch's foreach form. Imports foundation only.

One foreach call treats all leaves at once: one kernel launch in eager mode and one horizontally fused
kernel when compiled, where a loop over leaves would take hundreds.
"""

from typing import Any

import optree
import torch

from functrain.foundation import trees
from functrain.foundation.trees import Tree


def foreach(op: str, leaves: list[torch.Tensor], *args: Any, **kwargs: Any) -> list[torch.Tensor]:
    """Apply the torch function `op` to every leaf at once, out of place; results keep the leaves' dtypes.

    Args:
        op: a name with a `torch._foreach_` form: "add", "mul", "div", "sqrt", "sign", "addcmul", ...
        leaves: the first argument of each call; may be empty.
        args: lists give one element to each leaf; numbers and 0-d tensors go to all leaves.
        kwargs: numbers, the same for all leaves (`alpha`, `value`).

    Returns:
        One new tensor per leaf.

    Example:
        >>> foreach("add", [torch.zeros(2), torch.tensor(1.0)], torch.tensor(0.5, dtype=torch.float64))
        [tensor([0.5000, 0.5000]), tensor(1.5000)]
    """
    if not leaves:  # torch refuses empty lists
        return []
    if _inside_transform():
        results = _one_by_one(op, leaves, args, kwargs)
    else:
        results = getattr(torch, f"_foreach_{op}")(leaves, *args, **kwargs)
    # A float64 0-d scalar leaves a float32 leaf of one or more dimensions alone, but promotes a 0-d one.
    return [new if new.dtype == old.dtype else new.to(old.dtype) for new, old in zip(results, leaves)]


def _one_by_one(
    op: str, leaves: list[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[torch.Tensor]:
    columns = [arg if isinstance(arg, list) else [arg] * len(leaves) for arg in args]
    return [getattr(torch, op)(*row, **kwargs) for row in zip(leaves, *columns, strict=True)]


def _inside_transform() -> bool:
    """Whether a torch.func transform is active: foreach operators have no batching rule (torch 2.13).

    torch has no public way to ask; of the private ones this is the one that torch.compile can trace.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def aligned_leaves(**named_trees: Tree) -> tuple[optree.PyTreeSpec, list[list[Any]]]:
    """Leaf lists of trees that must have one structure, and that structure.

    Raises:
        ValueError: a tree differs from the first one; the message names the leaves.

    Example:
        >>> aligned_leaves(params={"w": 1, "b": 2}, grads={"b": 20, "w": 10})[1]
        [[2, 1], [20, 10]]
    """
    (first_name, first), *rest = named_trees.items()
    first_leaves, spec = trees.flatten(first)
    columns = [first_leaves]
    for name, tree in rest:
        tree_leaves, tree_spec = trees.flatten(tree)
        if tree_spec != spec:
            raise ValueError(_difference(first_name, first, name, tree))
        columns.append(tree_leaves)
    return spec, columns


def _difference(first_name: str, first: Tree, name: str, tree: Tree) -> str:
    expected, given = trees.paths(first), trees.paths(tree)
    missing = [path for path in expected if path not in given][:5]
    extra = [path for path in given if path not in expected][:5]
    if not missing and not extra:
        detail = f"the leaves bear the same names, but the containers differ: {trees.structure(tree)}"
    else:
        detail = f"missing {missing}, unexpected {extra} (at most five of each are named)"
    return f"{name} must have the tree structure of {first_name}: {detail}"
