"""A tree as named groups of named leaves.

A group is a top-level child of the tree: a field of a `@node` dataclass, an entry of a dictionary.
Groups are what a reader can pick, so each becomes one item of the checkpoint. Unlike elsewhere in
functrain, `None` counts as a leaf here: a counter that is `None` in a fresh state and a number in
a saved one must be seen to be the same counter.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import optree
import torch

from functrain.foundation.trees import NAMESPACE, Tree

Forms = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]  # name (group/path) of each saved tensor -> dtype and shape


@runtime_checkable
class Growing(Protocol):
    """A tree with tensors that checkpoints of earlier versions do not have.

    Attributes:
        added_leaves: group and path of each, and the number that it is filled with where it is missing.
    """

    added_leaves: ClassVar[Mapping[tuple[str, str], float]]


@runtime_checkable
class Fitting(Protocol):
    """A tree with a part whose form depends on the data, and which a fresh tree does not have yet.

    Attributes:
        left_out: beginnings of the names (group/path) of saved leaves that need have no place in the tree.
    """

    left_out: ClassVar[tuple[str, ...]]

    def fitted(self, saved: Callable[[], Forms]) -> "Fitting":
        """The tree with room for what was saved.

        Args:
            saved: asked only if it is needed; its names begin at this tree.
        """


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


@dataclass(frozen=True)
class LeafNames:
    """The names in a tree's structure. Making it takes longer than all else of a save that training waits for.

    Args:
        groups: the top-level children.
        places: group and path of each leaf, in the tree's order.
        spec: the structure.
    """

    groups: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    spec: optree.PyTreeSpec


def flatten(tree: Tree) -> tuple[list[Any], optree.PyTreeSpec]:
    """The leaves, `None` among them, and the structure.

    Raises:
        TypeError: the tree is a single leaf.
    """
    leaves, spec = optree.tree_flatten(tree, none_is_leaf=True, namespace=NAMESPACE)
    if spec.is_leaf():
        raise TypeError(
            f"a checkpoint holds a tree with named children (a @node dataclass or a dictionary), "
            f"got {type(tree).__name__}: wrap it, as in {{'value': tree}}"
        )
    return leaves, spec


def leaf_names(spec: optree.PyTreeSpec) -> LeafNames:
    """The names in a structure.

    Raises:
        ValueError: two keys read the same, such as `1` and `"1"`.
    """
    groups: dict[str, None] = {}
    for entry in spec.entries():
        _refuse_twice(str(entry), groups, "")
        groups[str(entry)] = None
    places: dict[tuple[str, str], None] = {}
    for child, *entries in spec.paths():
        place = str(child), "/".join(map(_escape, entries))
        if place in places:
            _refuse_twice(place[1], [place[1]], place[0] + "/")
        places[place] = None
    return LeafNames(tuple(groups), tuple(places), spec)


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
    leaves, spec = flatten(tree)
    named = leaf_names(spec)
    groups: dict[str, dict[str, Any]] = {name: {} for name in named.groups}
    for (group, path), leaf in zip(named.places, leaves, strict=True):
        groups[group][path] = leaf
    return GroupedTree(groups, spec)


class Liberties(NamedTuple):
    """How a checkpoint may differ from the tree that it is restored into.

    Attributes:
        added: group and path of each leaf that it may lack, and the number that this one is filled with.
        left_out: beginnings of the names (group/path) of leaves that the tree may lack.
    """

    added: Mapping[tuple[str, str], float]
    left_out: tuple[str, ...]


def fitted(tree: Tree, saved: Callable[[], Forms]) -> Tree:
    """The tree with room for what was saved: for a state, or for each of several states in a dictionary.

    Args:
        tree: any tree.
        saved: asked only if it is needed.
    """
    paths, parts, spec = _parts(tree)

    def below(path: tuple[Any, ...]) -> Callable[[], Forms]:
        start = "".join(f"{name}/" for name in _names(path))
        return lambda: {name.removeprefix(start): form for name, form in saved().items() if name.startswith(start)}

    made = [part.fitted(below(path)) if isinstance(part, Fitting) else part for path, part in zip(paths, parts)]
    return optree.tree_unflatten(spec, made)


def liberties(tree: Tree) -> Liberties:
    """What the tree, or each state in it, allows."""
    added: dict[tuple[str, str], float] = {}
    left_out: list[str] = []
    for path, part in zip(*_parts(tree)[:2]):
        if isinstance(part, Growing):
            for place, number in part.added_leaves.items():
                names = [*_names(path), *place]
                added[names[0], "/".join(names[1:])] = number
        if isinstance(part, Fitting):
            left_out += ["/".join((*_names(path), start)) for start in part.left_out]
    return Liberties(added, tuple(left_out))


def _parts(tree: Tree) -> tuple[list[tuple[Any, ...]], list[Any], optree.PyTreeSpec]:
    """The states in a tree, and the leaves beside them, with their paths."""
    return optree.tree_flatten_with_path(
        tree, lambda part: isinstance(part, (Fitting, Growing)), none_is_leaf=True, namespace=NAMESPACE
    )


def _names(path: tuple[Any, ...]) -> list[str]:
    """The entries of a path as they stand in the names of leaves: the first one is a group."""
    return [str(path[0]), *map(_escape, path[1:])] if path else []


def full_path(group: str, path: str) -> str:
    """The name of a leaf in the whole tree, for messages."""
    return f"{group}/{path}" if path else group


def _refuse_twice(name: str, taken: Container[str], prefix: str) -> None:
    if name in taken:
        raise ValueError(f"two keys of the tree read {prefix + name!r}: a checkpoint needs names that differ as text")


def _escape(entry: Any) -> str:
    # As in functrain.foundation.trees.paths: a slash inside a key must not look like a level.
    return str(entry).replace("\\", "\\\\").replace("/", "\\/")
