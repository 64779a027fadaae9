"""Checks of hyperparameters, with one wording of the errors."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from functrain.foundation.numbers import is_integer, is_number


def require_non_negative(name: str, value: Any) -> None:
    """Raise unless `value` is a finite number >= 0.

    Example:
        >>> require_non_negative("lr", -0.1)
        Traceback (most recent call last):
        ...
        ValueError: lr must be a finite number >= 0, got -0.1
    """
    require_number(name, value)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")


def require_positive(name: str, value: Any) -> None:
    """Raise unless `value` is a finite number > 0."""
    require_number(name, value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")


def require_fraction(name: str, value: Any) -> None:
    """Raise unless 0 <= `value` < 1."""
    require_number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value!r}")


def require_betas(betas: Any, name: str = "betas") -> None:
    """Raise unless `betas` is a pair of numbers in [0, 1) or schedules; `name` is what the caller's user wrote."""
    require_length(name, betas, 2, "a pair of numbers in [0, 1)")
    for index, beta in enumerate(betas):
        unless_schedule(require_fraction, **{f"{name}[{index}]": beta})


def require_length(name: str, values: Any, length: int, what: str) -> None:
    """Raise unless `values` is a tuple or list of this length; `what` says in the message what it should be.

    Example:
        >>> require_length("step_sizes", 0.1, 2, "the smallest and the largest step")
        Traceback (most recent call last):
        ...
        ValueError: step_sizes must be the smallest and the largest step, got 0.1
    """
    if not (isinstance(values, tuple | list) and len(values) == length):
        raise ValueError(f"{name} must be {what}, got {values!r}")


def require_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise unless `value` is one of the `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")


def unless_schedule(require: Callable[[str, Any], None], **hyperparameters: Any) -> None:
    """Apply a check to each hyperparameter that is not a schedule: what a schedule gives is its own affair.

    Example:
        >>> unless_schedule(require_non_negative, momentum=lambda step: 0.9, eps=-1)
        Traceback (most recent call last):
        ...
        ValueError: eps must be a finite number >= 0, got -1
    """
    for name, value in hyperparameters.items():
        if not callable(value) or isinstance(value, type):
            require(name, value)


def require_schedule(name: str, value: Any) -> None:
    """Raise unless `value` is a function, and no class, such as one of torch's schedulers."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(
            f"{name} must be a schedule, a function from step to scalar such as schedules.constant(0.1); got {value!r}"
        )


def require_list(name: str, value: Any, of: str) -> None:
    """Raise unless `value` is a list or a tuple."""
    if not isinstance(value, tuple | list):
        raise TypeError(f"{name} must be a list of {of}, got {value!r}")


def require_flag(name: str, value: Any) -> None:
    """Raise unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def require_steps(name: str, value: Any, *, least: int = 1) -> None:
    """Raise unless `value` is an int >= `least`."""
    if not is_integer(value):
        raise TypeError(f"{name} must be an int, a number of optimizer updates, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value!r}")


def require_number(name: str, value: Any) -> None:
    """Raise unless `value` is an int or a float."""
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
