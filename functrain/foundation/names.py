"""Names for objects: how something that can hold only constants, such as a graph of Dynamo's, points to them."""

import weakref
from typing import Any

_named: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def name_of(value: Any) -> str:
    """A name that belongs to an object as long as it lives.

    Example:
        >>> named(name_of(ValueError)) is ValueError
        True
    """
    name = f"{type(value).__name__} {id(value)}"
    _named[name] = value
    return name


def named(name: str) -> Any:
    """The object that has the name.

    Raises:
        KeyError: it lives no more.
    """
    return _named[name]
