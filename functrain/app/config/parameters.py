"""Parameters of named functions, checked against the functions' signatures.

`model: {name: digits_cnn, channels: 32}` calls `DigitsCNN(channels=32)`. Unknown keys, missing keys and values of the
wrong type are found before anything is built.
"""

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from functrain.app.config.wording import shown

# Parameters that the application fills in itself, from elsewhere in the configuration.
FILLED_IN: Mapping[str, frozenset[str]] = {
    "model": frozenset(),
    "data": frozenset({"split", "transform"}),
    "objective": frozenset(),
    "optimizer": frozenset({"lr", "weight_decay_mask"}),
    "schedule": frozenset({"lr", "warmup_steps", "warmup_fraction"}),
    "loss": frozenset({"logits", "predictions", "queries", "keys", "targets"}),
    "metric": frozenset(),
    "transform": frozenset({"sample", "batch", "key"}),
    "callback": frozenset({"event"}),
}

_FROM_YAML = (int, float, bool, str, type(None), list, tuple, Sequence, dict, Literal)


@dataclass(frozen=True)
class Signature:
    """What a configuration may set of a function.

    Attributes:
        types: parameter -> type that a value from YAML must have; `Any` if the function does not say.
        required: those without a default.
        open: the function takes any keyword.
    """

    types: Mapping[str, Any]
    required: tuple[str, ...]
    open: bool


def signature(kind: str, function: Callable[..., Any]) -> Signature:
    """The parameters of a function that plain values can be given for.

    Example:
        >>> def net(width: int, depth: int = 2, norm=None): ...
        >>> found = signature("model", net)
        >>> found.types, found.required
        ({'width': <class 'int'>, 'depth': <class 'int'>, 'norm': typing.Any}, ('width',))
    """
    filled = FILLED_IN[kind] | ({"model", "batch"} if is_objective(kind, function) else set())
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C, without a signature
        return Signature({}, (), True)
    hints = _hints(function)
    named = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    found = {name: _type_from_yaml(hints.get(name, Any)) for name in named if name not in filled}
    kinds = {p.kind for p in parameters.values()}
    return Signature(
        types={name: kind_of for name, kind_of in found.items() if kind_of is not None},
        required=tuple(name for name in found if named[name].default is inspect.Parameter.empty),
        open=inspect.Parameter.VAR_KEYWORD in kinds,
    )


def takes(function: Callable[..., Any], parameter: str) -> bool:
    """Whether a function has a parameter of this name."""
    try:
        return parameter in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def takes_one(function: Callable[..., Any]) -> bool:
    """Whether a function can be called with one argument."""
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # it does not say
        return True
    return True


def is_objective(kind: str, function: Callable[..., Any]) -> bool:
    """Whether a function named as an objective is one, `(model, batch) -> Loss`, and not a factory of one."""
    if kind != "objective":
        return False
    try:
        return list(inspect.signature(function).parameters)[:2] == ["model", "batch"]
    except (TypeError, ValueError):
        return False


def transforms_what(function: Callable[..., Any]) -> str | None:
    """What a function named as a transform transforms itself: "sample" or "batch"; None: it makes a transform.

    Example:
        >>> def double(sample, key): ...
        >>> def mixed(alpha): ...
        >>> transforms_what(double), transforms_what(mixed)
        ('sample', None)
    """
    try:
        first, *rest = list(inspect.signature(function).parameters)[:2]
    except (TypeError, ValueError):
        return None
    return first if first in ("sample", "batch") and rest == ["key"] else None


def converted(value: Any, expected: Any) -> Any:
    """A value from YAML in the type that a function wants. Only lists change: they become tuples.

    Raises:
        ValidationError: if it is not of that type.

    Example:
        >>> converted([0.9, 1], tuple[float, float])
        (0.9, 1.0)
    """
    if expected is Any:
        return value
    try:
        adapter = TypeAdapter(expected)
    except PydanticSchemaGenerationError:
        return value
    # Through JSON: there pydantic's strict mode takes a list for a tuple, but still no text for a number.
    return adapter.validate_json(json.dumps(value), strict=True)


def complaint(value: Any, expected: Any, spelling: str | None = None) -> str | None:
    """What is wrong with a value, as "must be ...; got ..."; None if nothing is.

    Args:
        value: from YAML.
        expected: the type.
        spelling: how it is written, if that is known.

    Example:
        >>> complaint("many", int)
        "must be a whole number; got 'many'"
    """
    try:
        converted(value, expected)
    except ValidationError as error:
        # A function (a schedule, in the place of a number) is not a value that YAML has.
        possible = [details for details in error.errors() if details["type"] != "callable_type"]
        wishes = dict.fromkeys(wish(details["msg"]) for details in possible or error.errors())
        return f"{' or '.join(wishes)}; got {spelling or shown(value)}"
    return None


_WORDING = {
    "Input should be a valid integer": "must be a whole number",
    "Input should be a valid number": "must be a number",
    "Input should be a valid string": "must be text (put it in quotes)",
    "Input should be a valid boolean": "must be true or false",
    "Input should be a valid dictionary": "must be a section with keys of its own",
    "Input should be an object": "must be a section with keys of its own",
    "Input should be a valid array": "must be a list",
    "Input should be a valid list": "must be a list",
    "Input should be a finite number": "must be a finite number",
    "Field required": "must have more items",
}


def wish(message: str) -> str:
    """A message of pydantic's in our words.

    Example:
        >>> wish("Input should be a valid integer"), wish("Input should be greater than 0")
        ('must be a whole number', 'must be greater than 0')
    """
    for theirs, ours in _WORDING.items():
        if message.startswith(theirs):
            return ours
    if message.startswith("Value error, "):
        return message.removeprefix("Value error, ")
    return re.sub(r"^\w+ should", "must", message).removesuffix(" after validation")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    described: Any = function.__dict__.get("__init__", function) if isinstance(function, type) else function
    try:
        return get_type_hints(described)
    except Exception:  # annotations that name what is not there: then they say nothing
        return {}


def _type_from_yaml(annotation: Any) -> Any:
    """The part of an annotation that YAML has values for; None if there is none."""
    if annotation is Any:
        return Any
    if get_origin(annotation) is Sequence:  # a list in YAML, a tuple to the function: options are hashed
        return tuple[(*get_args(annotation), ...)]  # type: ignore[misc]
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_type_from_yaml(part) for part in get_args(annotation) if _is_plain(part)]
        if not any(part is not type(None) for part in parts):
            return None
        return Union[tuple(parts)]  # noqa: UP007 (built from a tuple)
    return annotation if _is_plain(annotation) else None


def _is_plain(annotation: Any) -> bool:
    return (get_origin(annotation) or annotation) in _FROM_YAML
