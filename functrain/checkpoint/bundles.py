"""Many small arrays as few large ones.

orbax takes about 1 ms for every array, whatever its size: with 2,000 small ones a save took 25 to 45 times
as long as torch.save. So the small arrays of a group, if they are many, are stored one after the other in
one array for each dtype. Index and checksums stay those of the single arrays. A reader without functrain
finds the place of a leaf in the index: `"bundle": [key, offset in elements]`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from functrain.checkpoint import arrays, names
from functrain.checkpoint.index import GroupRecord, LeafRecord

# Where the millisecond for an array of its own is about the time that its bytes take.
SMALL_NBYTES = 2**20
# Fewer are not worth it: stored by their names, they are easier to read for others.
MANY = 32

Array = np.ndarray[Any, Any]


def assign(group: GroupRecord) -> GroupRecord:
    """Give the small arrays of a group their places, if they are many."""
    small = [
        leaf
        for leaf in group.leaves.values()
        if leaf.kind == "array"
        and leaf.stored_nbytes <= SMALL_NBYTES
        and leaf.pieces is None
        and not arrays.is_raw(leaf.dtype)
    ]
    if len(small) < MANY:
        return group
    leaves, ends = dict(group.leaves), dict.fromkeys((leaf.dtype for leaf in small), 0)
    for leaf in small:
        leaves[leaf.path] = leaf._replace(bundle=(names.bundle_key(leaf.dtype), ends[leaf.dtype]))
        ends[leaf.dtype] += leaf.numel
    return replace(group, leaves=leaves)


def key_of(leaf: LeafRecord) -> str:
    """The name under which orbax stores the array that holds a leaf's data."""
    return names.array_key(leaf.path) if leaf.bundle is None else leaf.bundle[0]


def stored_forms(group: GroupRecord, paths: Iterable[str]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """NumPy dtype and shape of the stored arrays that hold these leaves, by key."""
    lengths = {
        key: (leaf.dtype, offset + leaf.numel)
        for leaf in group.leaves.values()
        if leaf.bundle
        for key, offset in [leaf.bundle]
    }  # the last leaf of a bundle tells its length
    forms = {}
    for path in paths:
        leaf = group.leaves[path]
        if leaf.bundle is None:
            forms[key_of(leaf)] = arrays.stored_form(leaf.dtype, leaf.shape)
        else:
            dtype, length = lengths[leaf.bundle[0]]
            forms[leaf.bundle[0]] = arrays.stored_form(dtype, (length,))
    return forms


def pack(group: GroupRecord, singles: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays to store, by key.

    Args:
        group: with places, see `assign`.
        singles: by path, the group's arrays.
    """
    forms = stored_forms(group, singles)
    stored = {key: np.empty(shape, dtype) for key, (dtype, shape) in forms.items() if names.is_bundle_key(key)}
    for path, array in singles.items():
        leaf = group.leaves[path]
        if leaf.bundle is None:
            stored[key_of(leaf)] = array
        else:
            key, offset = leaf.bundle
            _as_bytes(stored[key][offset : offset + leaf.numel])[...] = _as_bytes(array.reshape(-1))
    return stored


def unpack(leaf: LeafRecord, stored: Mapping[str, Array]) -> Array:
    """A leaf's array out of those that were stored."""
    array = stored[key_of(leaf)]
    if leaf.bundle is None:
        return array
    offset = leaf.bundle[1]
    return array[offset : offset + leaf.numel].reshape(leaf.shape)


def _as_bytes(array: Array) -> Array:
    # By bytes, so that no signalling NaN is quieted on the way.
    return array.view(np.uint8)
