"""How many examples a batch holds, and a batch with some of them.

| a batch of | its examples |
|---|---|
| tensors | the rows of its tensors, along their first dimension |
| lists, where the objective `takes_lists` | the elements of the lists that are its parts |
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optree
from torch import Tensor

from functrain.foundation.trees import NAMESPACE, leaves
from functrain.objectives.batch import batch_length, refuse_objects


def takes_lists(objective: Callable[..., Any]) -> bool:
    """Whether a list in a batch is one argument of the model, with an element for each example.

    Images of several sizes, and boxes, come in such lists. For other objectives a list of inputs holds several
    arguments. Of your own objective, say so by an attribute: `objective.takes_lists = True`.
    """
    return bool(getattr(objective, "takes_lists", False))


def count_examples(objective: Callable[..., Any]) -> Callable[[Any], int]:
    """What counts the examples of a batch that this objective takes."""
    return list_length if takes_lists(objective) else batch_length


def list_length(batch: Any) -> int:
    """The examples of a batch whose first part may be a list with an element for each.

    Example:
        >>> import torch
        >>> list_length(([torch.zeros(3, 4, 4), torch.zeros(3, 5, 9)], [{}, {}]))
        2
    """
    first = next(iter(_parts(batch)), None)
    return len(first) if isinstance(first, (tuple, list)) else batch_length(batch)


def length_of(batch: Any, *, lists: bool) -> int:
    """How many examples there are in a batch; `lists` as `takes_lists` says of the objective."""
    return list_length(batch) if lists else batch_length(batch)


def map_examples(fn: Callable[[Any], Any], batch: Any, length: int, *, lists: bool) -> Any:
    """The batch with `fn` of everything in it that has a row for each of `length` examples; all else stays.

    Args:
        fn: gets a tensor; or a list, if `lists` and a part of the batch has an element for each example.
        batch: any batch.
        length: its examples.
        lists: as `takes_lists` says.

    Example:
        >>> map_examples(lambda rows: rows[:1], (["a", "b"], "name"), 2, lists=True)
        (['a'], 'name')
    """

    whole = [part for part in _parts(batch) if lists and isinstance(part, (tuple, list)) and len(part) == length]

    def is_whole(node: Any) -> bool:
        return any(node is part for part in whole)

    def visit(leaf: Any) -> Any:
        if is_whole(leaf):
            return fn(list(leaf))
        return fn(leaf) if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == length else leaf

    return optree.tree_map(visit, batch, is_leaf=is_whole if whole else None, namespace=NAMESPACE)


def require_examples(batch: Any, what: str, *, lists: bool) -> None:
    """Refuse a batch that cannot be cut into examples.

    Args:
        batch: any batch.
        what: who wants to cut it, for the message.
        lists: as `takes_lists` says.

    Raises:
        TypeError: it holds an object; or a list whose tensors need not have a row for each example.
    """
    refuse_objects(batch, what)
    if lists or not any(map(_lists_in, _parts(batch))):
        return
    length = batch_length(batch)
    for other in _other_lengths(batch, length):
        raise TypeError(
            f"{what} needs a batch whose tensors have a row for each example; this one holds a list, and its tensors "
            f"differ in their first dimension ({length} and {other}). If the list has an element for each example "
            "(such as images of several sizes), tell it by an attribute of the objective: objective.takes_lists = True"
        )


def _other_lengths(batch: Any, length: int) -> list[int]:
    """First dimensions which show that a list in the batch may have an element for each example, and not rows."""
    parts = list(_parts(batch))
    if _lists_in(parts[0]):
        found = [_lengths(batch)]
    else:  # beside rows, a list may hold other tensors
        lists = [each for part in parts for each in _lists_in(part)]
        found = [_lengths(each) for each in lists if len(each) == length or length not in _lengths(each)]
    return [other for lengths in found for other in lengths if other != length]


def _lengths(tree: Any) -> list[int]:
    return [len(leaf) for leaf in leaves(tree) if isinstance(leaf, Tensor) and leaf.ndim]


def _parts(batch: Any) -> Iterable[Any]:
    if isinstance(batch, Mapping):
        return batch.values()
    return batch if isinstance(batch, (tuple, list)) else (batch,)


def _lists_in(part: Any) -> list[Any]:
    """The lists with tensors in them, within a part of a batch; not those within lists."""
    if isinstance(part, Mapping):
        return [found for value in part.values() for found in _lists_in(value)]
    return [part] if isinstance(part, (tuple, list)) and _lengths(part) else []
