"""Which arguments are numbers: Python counts True and False among them, and functrain does not."""

import functools
from typing import Any, TypeGuard


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is an int or a float.

    Example:
        >>> is_number(1), is_number(0.5), is_number(True), is_number("1")
        (True, True, False, False)
    """
    return isinstance(value, (int, float, MemberValue)) and not isinstance(value, bool)


def is_integer(value: Any, least: int | None = None) -> TypeGuard[int]:
    """Whether a value is an int, and not below `least`.

    Example:
        >>> is_integer(-1), is_integer(3, 1), is_integer(0, 1), is_integer(True), is_integer(2.0)
        (True, True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


@functools.total_ordering
class MemberValue:
    """A number that differs between members that are trained together: for checks a number, for arithmetic a tensor.

    To reckon with it as a number would give every member the same. It is no float, so Python and torch refuse to.

    Attributes:
        number: one that passes the checks as each member's does.
        tensor: each member's, a 0-d tensor within `torch.func.vmap`.

    Example:
        >>> import torch
        >>> value = MemberValue(0.5, torch.tensor(0.25))
        >>> value > 0, is_number(value), value.tensor
        (True, True, tensor(0.2500))
        >>> 1 - value
        Traceback (most recent call last):
        ...
        TypeError: unsupported operand type(s) for -: 'int' and 'MemberValue'
    """

    def __init__(self, number: float, tensor: Any) -> None:
        self.number, self.tensor = number, tensor

    def __float__(self) -> float:
        """For `math.isfinite`."""
        return self.number

    def __eq__(self, other: object) -> bool:
        return self.number == other

    def __lt__(self, other: float) -> bool:
        return self.number < other

    def __hash__(self) -> int:
        return hash(self.number)

    def __repr__(self) -> str:
        return "<a number of each member's>"
