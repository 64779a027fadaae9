"""Sums in a fixed order: a binary tree, whose branches may be added by different processes."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


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
