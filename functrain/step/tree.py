"""Sums in a fixed order: a binary tree, whose branches may be added by different processes.

A process that has a run of the tree's leaves adds them with `carried` and `folded`, as they come; `sum_in_tree` adds
what the processes have.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


def carried(parts: tuple[T, ...], part: T, done: int, add: Callable[[T, T], T]) -> tuple[T, ...]:
    """The sums of a tree's first leaves, as a binary counter has its digits, with one leaf more.

    Two of one size make one of the next, so that there are never more than log2 of the number of leaves.

    Args:
        parts: the sums so far, the larger before the smaller.
        part: the next leaf.
        done: how many leaves there were.
        add: of two.

    Example:
        >>> parts = ()
        >>> for number in range(3):
        ...     parts = carried(parts, str(number), number, "({}+{})".format)
        >>> parts
        ('(0+1)', '2')
    """
    while done & 1:
        *before, last = parts
        parts, part, done = tuple(before), add(last, part), done >> 1
    return (*parts, part)


def folded(parts: tuple[T, ...], add: Callable[[T, T], T]) -> T:
    """The sum of the parts of an incomplete tree, the smallest first; what is missing is passed over.

    Example:
        >>> folded(("(0+1)", "2"), "({}+{})".format)
        '((0+1)+2)'
    """
    *before, total = parts
    for each in reversed(before):
        total = add(each, total)
    return total


def sum_in_tree(parts: Sequence[T | None], add: Callable[[T, T], T]) -> T:
    """The sum of neighbours, of neighbouring sums, and so on; None is a part that is missing, and is passed over.

    Args:
        parts: as many as a power of two.
        add: of two.

    Raises:
        ValueError: there is none.

    Example:
        >>> sum_in_tree(["a", "b", "c", None], "({}+{})".format)
        '((a+b)+c)'
    """
    level = list(parts)
    while len(level) > 1:
        level = [_both(*pair, add) for pair in zip(level[::2], level[1::2], strict=True)]
    return _there(level[0] if level else None)


def sum_in_order(parts: Sequence[T | None], add: Callable[[T, T], T]) -> T:
    """The sum of one after another; None is passed over.

    Example:
        >>> sum_in_order(["a", "b", None, "c"], "({}+{})".format)
        '((a+b)+c)'
    """
    total: T | None = None
    for part in parts:
        total = _both(total, part, add)
    return _there(total)


def tree_over_rows(values: Tensor) -> Tensor:
    """The tree's sum over the first dimension, whose length is a power of two.

    Example:
        >>> import torch
        >>> tree_over_rows(torch.arange(8).view(4, 2))
        tensor([12, 16])
    """
    if len(values) & (len(values) - 1):
        return values.sum(0)
    while len(values) > 1:
        values = values[::2] + values[1::2]
    return values[0]


def _both(left: T | None, right: T | None, add: Callable[[T, T], T]) -> T | None:
    if left is None or right is None:
        return right if left is None else left
    return add(left, right)


def _there(total: T | None) -> T:
    if total is None:
        raise ValueError("there is nothing to add")
    return total
