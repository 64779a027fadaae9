"""What the values of settings may be, each kind with its words for a message."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from functrain.foundation.numbers import is_integer, is_number
from functrain.loop.output.progress_moving import Display


@dataclass(frozen=True)
class Kind:
    """What a setting accepts.

    Attributes:
        allowed: the values, in words: "{name} must be {allowed}".
        accepts: whether a value is one of them.
        error: the class of the error for another value.
        least: the smallest number.
        above: a number that all are greater than.
        choices: the names, if it accepts names only.
    """

    allowed: str
    accepts: Callable[[Any], bool]
    error: type[Exception] = ValueError
    least: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raise the error if the value is not allowed."""
        if not self.accepts(value):
            raise self.error(f"{name} must be {self.allowed}; got {value!r}")


def whole_number(of: str = "") -> Kind:
    """A whole number, 1 or more."""
    return Kind(f"a whole number{of and ' of '}{of}, 1 or more", lambda value: is_integer(value, 1), least=1)


def duration(unit: str) -> Kind:
    """A number of seconds or minutes, greater than 0."""
    return Kind(f"a number of {unit}, greater than 0", lambda value: is_number(value) and value > 0, above=0)


def one_of(*names: str) -> Kind:
    """One of these names."""
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names, choices=names)


ANY = Kind("anything", lambda _: True)
FLAG = Kind("True or False", lambda value: isinstance(value, bool), TypeError)
FLAG_OR_NONE = Kind("True, False or None", lambda value: isinstance(value, bool), TypeError)
FLAG_OR_AUTO = Kind("True, False or 'auto'", lambda value: isinstance(value, bool) or value == "auto", TypeError)
PART = Kind(
    "a whole number, 1 or more, or a fraction above 0.0 and at most 1.0",
    lambda value: is_integer(value, 1) or (isinstance(value, float) and 0 < value <= 1),
)
COUNT_OR_AUTO = Kind("a whole number, 1 or more, or 'auto'", lambda value: is_integer(value, 1) or value == "auto")
DIRECTORY = Kind(
    "the path of a directory, or None to keep nothing",
    lambda value: isinstance(value, (str, os.PathLike)) and bool(os.fspath(value)),
    TypeError,
)
CHECKPOINT = Kind("'auto', 'never' or a path", lambda value: isinstance(value, (str, os.PathLike)), TypeError)
DICTIONARY = Kind("a dictionary of what JSON can hold, or None", lambda value: isinstance(value, Mapping), TypeError)
TEXT = Kind("text", lambda value: isinstance(value, str) and bool(value), TypeError)
TEXTS = Kind(
    "a list of texts",
    lambda value: isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value),
    TypeError,
)
TEXTS_BY_NAME = Kind(
    "a dictionary of texts",
    lambda value: isinstance(value, Mapping) and all(isinstance(each, str) for pair in value.items() for each in pair),
    TypeError,
)
TRACKER = Kind(
    "True, False or a dictionary of its options", lambda value: isinstance(value, (bool, Mapping)), TypeError
)
METRIC = Kind("the name of a record, such as 'eval_loss'", lambda value: isinstance(value, str), TypeError)
PROGRESS = Kind(
    "True, False, 'curve' or None",
    lambda value: isinstance(value, (bool, Display)) or value == "curve",
    TypeError,
)
