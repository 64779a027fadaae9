"""One of two trees, by a condition on the device."""

from typing import Any

import torch
from torch import Tensor

from functrain.foundation.torch_internals import is_readable, is_rehearsed, storage_number
from functrain.foundation.trees import flatten, tree_map, unflatten


def choose(condition: Tensor, after: Any, before: Any) -> Any:
    """The leaves of `after` where the condition, 0-d bool, holds, else those of `before`; no result shares theirs.

    On an accelerator, and within a graph, no value is read, so that no step waits for a decision. An eager step on the
    CPU has nothing to wait for: it reads the condition, and the leaves of `after` need not be written once more (for
    Adam, parameters and two moments, as much as the update itself).

    Raises:
        ValueError: the trees differ in structure.

    Example:
        >>> choose(torch.tensor(False), {"w": torch.ones(2)}, {"w": torch.zeros(2)})
        {'w': tensor([0., 0.])}
    """
    (old, old_spec), (new, spec) = flatten(before), flatten(after)
    if not is_readable(condition) or spec != old_spec:
        return tree_map(lambda a, b: torch.where(condition, a, b), after, before)
    if not condition.item():
        return tree_map(torch.clone, before)
    # A leaf that an optimizer hands on as it is would be one tensor in two states, of which one may be donated.
    held = set(map(_storage, old))
    return unflatten(spec, [leaf.clone() if _storage(leaf) in held else leaf for leaf in new])


def _storage(leaf: Tensor) -> int:
    """Where a tensor's storage begins, without an object made for it."""
    if is_rehearsed():  # there is no memory
        return storage_number(leaf)
    return leaf.data_ptr() - int(leaf.storage_offset()) * leaf.element_size()
