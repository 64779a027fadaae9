"""A tree as named groups of named leaves. Imports functrain.foundation and optree only.

A group is a top-level child of the tree: a field of a `@node` dataclass, an entry of a dictionary.
Groups are what a reader can pick, so each becomes one item of the checkpoint. Unlike elsewhere in
functrain, `None` counts as a leaf here: a counter that is `None` in a fresh state and a number in
a saved one must be seen to be the same counter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optree

from functrain.foundation.trees import NAMESPACE, Tree


@dataclass(frozen=True)
class GroupedTree:
    """A tree split at its top level.

    Args:
        groups: for each group, its leaves by path, both in the tree's order.
        spec: the structure that puts all leaves back.
    """

    groups: Mapping[str, Mapping[str, Any]]
    spec: optree.PyTreeSpec

    def rebuild(self, leaves: Mapping[str, Sequence[Any]]) -> Tree:
        """The tree with the leaves of the groups named in `leaves` replaced; the others stay."""
        parts = [leaves.get(name, list(group.values())) for name, group in self.groups.items()]
        return optree.tree_unflatten(self.spec, [leaf for part in parts for leaf in part])


def split(tree: Tree) -> GroupedTree:
    """Split a tree at its top level.

    Returns:
        A `GroupedTree`; the path of a top-level child that is itself a leaf is "".

    Raises:
        TypeError: the tree is a single leaf.
        ValueError: two keys read the same, such as `1` and `"1"`.

    Example:
        >>> split({"params": {"conv.weight": 1, "head": (2, None)}, "step": 3, "ema": {}}).groups
        {'ema': {}, 'params': {'conv.weight': 1, 'head/0': 2, 'head/1': None}, 'step': {'': 3}}
    """
    groups: dict[str, dict[str, Any]] = {}
    for name in _children(tree):
        _refuse_twice(name, groups, "")
        groups[name] = {}
    entry_paths, leaves, spec = optree.tree_flatten_with_path(tree, none_is_leaf=True, namespace=NAMESPACE)
    for (child, *entries), leaf in zip(entry_paths, leaves, strict=True):
        group, path = str(child), "/".join(_escape(entry) for entry in entries)
        _refuse_twice(path, groups[group], group + "/")
        groups[group][path] = leaf
    return GroupedTree(groups, spec)


def _children(tree: Tree) -> list[str]:
    try:
        children = optree.tree_flatten_one_level(tree, none_is_leaf=True, namespace=NAMESPACE)
    except ValueError as error:
        raise TypeError(
            f"a checkpoint holds a tree with named children (a @node dataclass or a dictionary), "
            f"got {type(tree).__name__}: wrap it, as in {{'value': tree}}"
        ) from error
    return [str(entry) for entry in children.entries]


def full_path(group: str, path: str) -> str:
    """The name of a leaf in the whole tree, for messages."""
    return f"{group}/{path}" if path else group


def _refuse_twice(name: str, taken: Mapping[str, Any], prefix: str) -> None:
    if name in taken:
        raise ValueError(f"two keys of the tree read {prefix + name!r}: a checkpoint needs names that differ as text")


def _escape(entry: Any) -> str:
    # As in functrain.foundation.trees.paths: a slash inside a key must not look like a level.
    return str(entry).replace("\\", "\\\\").replace("/", "\\/")
