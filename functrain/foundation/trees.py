"""Pytrees, through optree.

All trees of functrain are flattened in optree's namespace `NAMESPACE`, with `None` as an empty
subtree. A dataclass that is a node of such trees is declared with `@node`; torch's own pytree
learns of it too, so that torch.func, torch.export and torch.compile see through it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import optree
import torch

from functrain.foundation.torch_internals import register_with_torch

NAMESPACE = "functrain"

T = TypeVar("T")
Tree = Any


@dataclass_transform(frozen_default=True)
def node(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree node; its fields, in order, are its children.

    A field declared with `static()` is part of the tree's structure instead: it must be
    hashable and comparable, and is never a leaf.

    Example:
        >>> @node
        ... class Pair:
        ...     left: int
        ...     right: int
        ...     name: str = static(default="p")
        >>> leaves(Pair(1, 2)), tree_map(lambda x: x * 10, Pair(1, 2))
        ([1, 2], Pair(left=10, right=20, name='p'))
    """
    data = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(data)  # type: ignore[arg-type]
    children = tuple(f.name for f in fields if not f.metadata.get("static"))
    constants = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten(value: T) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[str, ...]]:
        attributes = value.__dict__
        return tuple(attributes[c] for c in children), tuple(attributes[c] for c in constants), children

    def unflatten(constant_values: tuple[Any, ...], child_values: tuple[Any, ...]) -> T:
        value = object.__new__(data)
        value.__dict__.update(zip(children, child_values))
        value.__dict__.update(zip(constants, constant_values))
        return value

    optree.register_pytree_node(
        data,  # type: ignore[arg-type]
        flatten,  # type: ignore[arg-type]
        unflatten,  # type: ignore[arg-type]
        path_entry_type=optree.GetAttrEntry,
        namespace=NAMESPACE,
    )
    register_with_torch(
        data,
        lambda value: (list(flatten(value)[0]), flatten(value)[1]),
        lambda child_values, constant_values: unflatten(constant_values, tuple(child_values)),
        children,
    )
    return data


def static(**kwargs: Any) -> Any:
    """Declare a field of a `@node` class as part of the structure; takes `dataclasses.field`'s arguments."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


def flatten(tree: Tree) -> tuple[list[Any], optree.PyTreeSpec]:
    """Leaves in order, and the structure that puts them back."""
    return optree.tree_flatten(tree, namespace=NAMESPACE)


def unflatten(spec: optree.PyTreeSpec, leaf_list: list[Any]) -> Tree:
    """The tree of structure `spec` with these leaves."""
    return spec.unflatten(leaf_list)  # `optree.tree_unflatten` without a call in between, at each step


def leaves(tree: Tree) -> list[Any]:
    """Leaves in order."""
    return optree.tree_leaves(tree, namespace=NAMESPACE)


def structure(tree: Tree) -> optree.PyTreeSpec:
    """The structure alone; two trees are alike when their structures are equal."""
    return optree.tree_structure(tree, namespace=NAMESPACE)


def tree_map(fn: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply `fn` to the leaves of trees of one structure."""
    return optree.tree_map(fn, tree, *rest, namespace=NAMESPACE)


def paths(tree: Tree) -> list[str]:
    """A readable, unique name for each leaf, in the order of `leaves`.

    Dictionary keys, attributes and indices are joined with "/"; a slash or backslash inside a key is
    escaped, so that only keys that read the same (0 and "0" in one dictionary) could share a name.

    Raises:
        ValueError: if two leaves would share a name.

    Example:
        >>> paths({"a.b": 1, "c": (2, 3)})
        ['a.b', 'c/0', 'c/1']
    """
    entries = optree.tree_paths(tree, namespace=NAMESPACE)
    names = ["/".join(map(_escape, path)) for path in entries]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"two leaves of the tree have the name {twice!r}: a dictionary has keys that differ but read the "
            "same, such as 0 and '0'. Rename one"
        )
    return names


def _escape(entry: Any) -> str:
    return str(entry).replace("\\", "\\\\").replace("/", "\\/")


def leaves_with_paths(tree: Tree) -> list[tuple[str, Any]]:
    """Pairs of path and leaf."""
    return list(zip(paths(tree), leaves(tree)))


def tensors(tree: Tree) -> list[torch.Tensor]:
    """The leaves that are tensors."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, torch.Tensor)]


def copy_tensors(tree: Tree) -> Tree:
    """The tree with a copy of each tensor."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, tree)


def nbytes(tree: Tree) -> int:
    """Bytes of all tensor leaves; a storage that several leaves share counts once for each."""
    return sum(t.numel() * t.element_size() for t in tensors(tree))
