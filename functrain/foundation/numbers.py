"""Which arguments are numbers: Python counts True and False among them, and functrain does not."""

from typing import Any, TypeGuard


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is an int or a float.

    Example:
        >>> is_number(1), is_number(0.5), is_number(True), is_number("1")
        (True, True, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_integer(value: Any, least: int | None = None) -> TypeGuard[int]:
    """Whether a value is an int, and not below `least`.

    Example:
        >>> is_integer(-1), is_integer(3, 1), is_integer(0, 1), is_integer(True), is_integer(2.0)
        (True, True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)
