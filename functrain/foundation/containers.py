"""What else is a tree: mappings that are no dict, types that torch's pytree knows, objects that hold tensors.

optree looks a node's type up in a table. A batch may hold types of other libraries, which nobody can list beforehand,
so `register_containers` looks at the leaves of a batch and enters their types in the table when it meets them first.
"""

import collections
import copy
import io
import pickle
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import optree
from torch import Generator, Tensor, nn

from functrain.foundation.torch_internals import torch_nodes
from functrain.foundation.trees import NAMESPACE

_LEAVES: set[type] = {Tensor, nn.Parameter, int, float, bool, complex, str, bytes}  # grows
_NODES: set[type] = set()
_OBJECTS: set[type] = set()  # those of the nodes that are neither mappings nor torch's
_LOCK = threading.Lock()


def register_containers(tree: Any) -> None:
    """See to it that optree finds the tensors within a batch, whatever its containers are.

    | container | its children | what is rebuilt from them |
    |---|---|---|
    | subclass of `dict` or `collections.UserDict` | its values | the same class, other attributes kept |
    | any other `Mapping` | its values | a dict |
    | type registered with torch's pytree | as registered | as registered |
    | any other object that can be pickled and holds tensors | the tensors | a copy of the object |

    A type that is already registered with optree, for all namespaces, stays as it is.

    Example:
        >>> from functrain.foundation.trees import leaves
        >>> batch = collections.UserDict(x=1, y=2)
        >>> register_containers(batch)
        >>> leaves(batch)
        [1, 2]
    """
    if (kind := type(tree)) is Tensor:
        return
    if kind is tuple or kind is list or kind is dict:
        for leaf in tree.values() if kind is dict else tree:
            if type(leaf) is not Tensor:
                break
        else:
            return  # the usual case, at each step, without flattening
    found = optree.tree_leaves(tree, namespace=NAMESPACE)
    while not _LEAVES.issuperset(map(type, found)):
        with _LOCK:
            if not _register_new(found):
                return
        found = optree.tree_leaves(tree, namespace=NAMESPACE)


def objects_in(tree: Any) -> list[Any]:
    """The objects in a tree that are taken apart only to find their tensors, such as a graph.

    Their tensors need not have a row for each example, so a batch that holds one can neither be padded nor split.

    Example:
        >>> from fractions import Fraction
        >>> objects_in(({"half": Fraction(1, 2)}, [1.0]))
        []
    """
    if not _OBJECTS:
        return []
    found = optree.tree_leaves(tree, is_leaf=lambda node: type(node) in _OBJECTS, namespace=NAMESPACE)
    return [leaf for leaf in found if type(leaf) in _OBJECTS]


def _register_new(leaves: Iterable[Any]) -> bool:
    """Decide on the types that were not seen before; whether one of them is a container."""
    containers = False
    for leaf in leaves:
        kind = type(leaf)
        if kind in _LEAVES:
            continue
        if kind not in _NODES and not _register(kind, leaf):
            _LEAVES.add(kind)
        else:
            containers = True  # also if another thread was faster
    return containers


def _register(kind: type, leaf: Any) -> bool:
    if isinstance(leaf, (Tensor, nn.Module, Generator)):
        return False
    if kind in torch_nodes:
        flatten, unflatten = _as_torch_does(kind)
    elif isinstance(leaf, (dict, collections.UserDict)):
        flatten, unflatten = _flatten_mapping, _unflatten_mapping
    elif isinstance(leaf, Mapping):
        flatten, unflatten = _flatten_mapping, _unflatten_dict
    elif _holds_tensors(leaf):
        flatten, unflatten = _flatten_object, _unflatten_object
        _OBJECTS.add(kind)
    else:
        return False
    optree.register_pytree_node(kind, flatten, unflatten, namespace=NAMESPACE)
    _NODES.add(kind)
    return True


class _Constant:
    """A value in a tree's structure that compares equal and hashes as its key does.

    Attributes:
        value: what unflattening needs.
        key: what structures are compared by.
    """

    def __init__(self, value: Any, key: Any) -> None:
        self.value, self.key = value, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and bool(self.key == other.key)

    def __hash__(self) -> int:
        try:
            return hash(self.key)
        except TypeError:
            return hash(type(self.key))  # such as a list: equal ones have one type

    def __repr__(self) -> str:
        return repr(self.key)


def _as_torch_does(kind: type) -> tuple[Any, Any]:
    definition = torch_nodes[kind]

    def flatten(value: Any) -> tuple[Any, _Constant]:
        children, context = definition.flatten_fn(value)
        return children, _Constant(context, context)

    def unflatten(constant: _Constant, children: Iterable[Any]) -> Any:
        return definition.unflatten_fn(list(children), constant.value)

    return flatten, unflatten


def _flatten_mapping(mapping: Any) -> tuple[list[Any], _Constant, tuple[Any, ...]]:
    keys = tuple(mapping)
    return [mapping[key] for key in keys], _Constant(_emptied(mapping), keys), keys


def _emptied(mapping: Any) -> Any:
    """A copy without the items, which would keep a batch's tensors alive as long as a compiled step."""
    if not isinstance(mapping, (dict, collections.UserDict)):
        return None
    kind: Any = type(mapping)
    empty = kind.__new__(kind)
    empty.__dict__.update(mapping.__dict__)
    if isinstance(mapping, collections.UserDict):
        empty.data = {}
    return empty


def _unflatten_mapping(constant: _Constant, values: Iterable[Any]) -> Any:
    mapping = copy.copy(constant.value)
    items = mapping.data if isinstance(mapping, collections.UserDict) else mapping
    for key, value in zip(constant.key, values):
        items[key] = value
    return mapping


def _unflatten_dict(constant: _Constant, values: Iterable[Any]) -> dict[Any, Any]:
    return dict(zip(constant.key, values))


class _Pickler(pickle.Pickler):
    """Pickles an object with numbers in place of its tensors."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, value: Any) -> int | None:
        """The tensor's number; one that comes twice has one."""
        if not isinstance(value, Tensor):
            return None
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.tensors)
            self.tensors.append(value)
        return self._numbers[id(value)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, tensors: list[Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._tensors = tensors

    def persistent_load(self, number: int) -> Any:
        """The tensor of this number."""
        return self._tensors[number]


def _flatten_object(value: Any) -> tuple[list[Tensor], bytes]:
    """The tensors, and the rest as bytes: objects with equal bytes differ in their tensors alone."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    return pickler.tensors, file.getvalue()


def _unflatten_object(data: bytes, tensors: Iterable[Any]) -> Any:
    return _Unpickler(data, list(tensors)).load()


def _holds_tensors(value: Any) -> bool:
    try:
        return bool(_flatten_object(value)[0])
    except Exception:  # what cannot be pickled stays a leaf
        return False
