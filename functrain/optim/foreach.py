"""Arithmetic on lists of leaves in torch's foreach form.

One foreach call treats all leaves at once: one kernel launch in eager mode and one horizontally fused
kernel when compiled, where a loop over leaves would take hundreds.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import optree
import torch

from functrain.foundation import trees
from functrain.foundation.torch_internals import (
    foreach_operator,
    inside_transform,
    is_eager,
    is_plain,
    is_rehearsed,
    is_traced,
    references,
)
from functrain.foundation.trees import Tree

Scalar = float | torch.Tensor
_apart: ContextVar[bool] = ContextVar("apart", default=False)


@contextlib.contextmanager
def apart_in_graphs() -> Iterator[None]:
    """Within, a graph treats leaf after leaf, so that the update of one does not wait for the gradient of all."""
    before = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(before)


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
    args = _spread(op, leaves, args)
    operator = foreach_operator(op)
    if operator is None or inside_transform() or (is_traced() and _apart.get()):
        results = _one_by_one(op, leaves, args, kwargs)
    else:
        results = operator(leaves, *args, **kwargs)
    # A float64 0-d scalar leaves a float32 leaf of one or more dimensions alone, but promotes a 0-d one.
    return [new if new.dtype == old.dtype else new.to(old.dtype) for new, old in zip(results, leaves)]


def overwrite(op: str, temporaries: list[torch.Tensor], *args: Any, **kwargs: Any) -> list[torch.Tensor]:
    """As `foreach`, but the results may take the memory of `temporaries`, to be used no more.

    Only for tensors that the caller has made itself and not given away: a fresh result costs a write to new
    memory, for large leaves as much as the arithmetic.

    Example:
        >>> overwrite("add", foreach("mul", [torch.ones(2)], 2.0), 1.0)
        [tensor([3., 3.])]
    """
    # Where gradients flow through an update, autograd may have kept a temporary for the backward pass.
    recorded = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in temporaries)
    operator = foreach_operator(f"{op}_")
    # In a graph nothing is won, and one that writes nothing in place needs no second trace by the compiler.
    if operator is None or not temporaries or recorded or inside_transform() or is_traced():
        return foreach(op, temporaries, *args, **kwargs)
    operator(temporaries, *_spread(op, temporaries, args), **kwargs)
    return temporaries


def are_ours(leaves: list[torch.Tensor]) -> bool:
    """Whether the list alone holds its tensors and their memory, in a computation that is not recorded.

    Example:
        >>> kept = torch.zeros(2)
        >>> are_ours([torch.zeros(2)]), are_ours([kept]), are_ours([torch.zeros(2), kept.view(2, 1)])
        (True, False, False)
    """
    if not (is_eager() or is_rehearsed()):
        return False
    alone, found = references([torch.empty(1)]), references(leaves)
    if alone is None or found is None:
        return False
    return all(map(is_plain, leaves)) and set(found) <= set(alone)


def divide_into(temporaries: list[torch.Tensor], leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """`leaves / temporaries`, whose memory the results may take, as of `overwrite`.

    Example:
        >>> divide_into(foreach("mul", [torch.ones(2)], 2.0), [torch.ones(2)])
        [tensor([0.5000, 0.5000])]
    """
    pairs = [*zip(leaves, temporaries)]
    plain = all(is_plain(new) and new.is_cpu and new.dtype == leaf.dtype for leaf, new in pairs)
    recorded = torch.is_grad_enabled() and any(leaf.requires_grad or new.requires_grad for leaf, new in pairs)
    if not plain or recorded or inside_transform():
        return foreach("div", leaves, temporaries)
    for leaf, temporary in pairs:  # on the CPU foreach is this loop, too
        torch.div(leaf, temporary, out=temporary)
    return temporaries


def add_scaled(leaves: list[torch.Tensor], others: list[torch.Tensor], factor: Scalar) -> list[torch.Tensor]:
    """`leaves + factor * others`; the factor is a number or a 0-d tensor.

    Example:
        >>> add_scaled([torch.tensor(1.0)], [torch.tensor(2.0)], torch.tensor(0.5))
        [tensor(2.)]
    """
    if isinstance(factor, torch.Tensor):
        return overwrite("add", foreach("mul", others, factor), leaves)
    return foreach("add", leaves, others, alpha=factor)


def add_scaled_into(temporaries: list[torch.Tensor], others: list[torch.Tensor], factor: Scalar) -> list[torch.Tensor]:
    """`temporaries + factor * others`, which may take the memory of `temporaries`, as of `overwrite`.

    Example:
        >>> add_scaled_into(foreach("mul", [torch.ones(2)], 2.0), [torch.ones(2)], 0.5)
        [tensor([2.5000, 2.5000])]
    """
    if isinstance(factor, torch.Tensor):
        return overwrite("add", temporaries, foreach("mul", others, factor))
    return overwrite("add", temporaries, others, alpha=factor)


def lerp(leaves: list[torch.Tensor], targets: list[torch.Tensor], weight: Scalar) -> list[torch.Tensor]:
    """`leaves + weight * (targets - leaves)`, the step of a moving average; the weight is a number or a 0-d tensor.

    Example:
        >>> lerp([torch.tensor(1.0)], [torch.tensor(2.0)], 0.25)
        [tensor(1.2500)]
    """
    if isinstance(weight, torch.Tensor):
        return overwrite("add", overwrite("mul", foreach("sub", targets, leaves), weight), leaves)
    return foreach("lerp", leaves, targets, weight)


def average_squares(squares: list[torch.Tensor], grads: list[torch.Tensor], beta: Scalar) -> list[torch.Tensor]:
    """`beta * squares + (1 - beta) * grads²`, the second moment of Adam and its kin.

    Example:
        >>> average_squares([torch.tensor(1.0)], [torch.tensor(3.0)], 0.75)
        [tensor(3.)]
    """
    decayed = foreach("mul", squares, beta)
    if isinstance(beta, torch.Tensor):
        return overwrite("add", decayed, overwrite("mul", foreach("mul", grads, grads), 1 - beta))
    return overwrite("addcmul", decayed, grads, grads, value=1 - beta)


def sums_of_squares(leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """The squared Euclidean norm of each leaf, 0-d: float64 for a float64 leaf, else float32.

    Not torch's norms, which on the CPU add float32 squares one after another (torch 2.13): a leaf of 10
    million elements is off by 3e-4, one of 50 million by 3e-3. torch.sum adds in pairs: 4e-8.

    Example:
        >>> sums_of_squares([torch.tensor([3.0, 4.0])])
        [tensor(25.)]
    """
    wide = [leaf if leaf.dtype in (torch.float32, torch.float64) else leaf.float() for leaf in leaves]
    if all(is_plain(leaf) and leaf.is_cpu for leaf in wide):
        # One after the other, as foreach does on a CPU, too; so each square's memory serves the next.
        return [torch.mul(leaf, leaf).sum() for leaf in wide]
    return [square.sum() for square in foreach("mul", wide, wide)]


def _spread(op: str, leaves: list[torch.Tensor], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """One reference to a 0-d addend for each leaf: as a single argument torch asks for its value (torch 2.13)."""
    if op != "add":
        return args
    return tuple([arg] * len(leaves) if isinstance(arg, torch.Tensor) else arg for arg in args)


def _one_by_one(
    op: str, leaves: list[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[torch.Tensor]:
    columns = [arg if isinstance(arg, list) else [arg] * len(leaves) for arg in args]
    return [getattr(torch, op)(*row, **kwargs) for row in zip(leaves, *columns, strict=True)]


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
        if not _alike(tree_spec, spec):
            raise ValueError(_difference(first_name, first, name, tree))
        columns.append(tree_leaves)
    return spec, columns


def _alike(one: optree.PyTreeSpec, other: optree.PyTreeSpec) -> bool:
    """Whether two structures are equal; in torch 2.11 Dynamo cannot compare them as they are."""
    if not torch.compiler.is_dynamo_compiling():
        return one == other
    kinds = one.type is other.type and one.entries() == other.entries() and one.num_children == other.num_children
    return kinds and all(map(_alike, one.children(), other.children()))


def _difference(first_name: str, first: Tree, name: str, tree: Tree) -> str:
    expected, given = trees.paths(first), trees.paths(tree)
    missing = [path for path in expected if path not in given][:5]
    extra = [path for path in given if path not in expected][:5]
    if not missing and not extra:
        detail = f"the leaves bear the same names, but the containers differ: {trees.structure(tree)}"
    else:
        detail = f"missing {missing}, unexpected {extra} (at most five of each are named)"
    return f"{name} must have the tree structure of {first_name}: {detail}"
