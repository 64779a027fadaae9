"""Which of a model's outputs an objective looks at.

Many models return one tensor; those of other libraries often an object with several: a mapping, a named tuple, a
dataclass.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

Key = str | int


def named_outputs(outputs: Any) -> Mapping[Any, Any] | None:
    """The outputs by their names; None if they have none.

    Example:
        >>> named_outputs({"logits": 1}), named_outputs((1, 2))
        ({'logits': 1}, None)
    """
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, tuple) and (fields := getattr(type(outputs), "_fields", None)):
        return dict(zip(fields, outputs))
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        return {field.name: getattr(outputs, field.name) for field in dataclasses.fields(outputs)}
    return None if isinstance(outputs, (Tensor, tuple, list)) else getattr(outputs, "__dict__", None)


def output_of(outputs: Any, key: Key | None, default: str) -> Tensor:
    """The tensor that an objective is about.

    Args:
        outputs: what the model returned.
        key: a name or an index; None: the only tensor, or the one named `default`.
        default: see `key`.

    Raises:
        TypeError: if no tensor is there.

    Example:
        >>> import torch
        >>> output_of({"loss": None, "logits": torch.ones(1)}, None, "logits")
        tensor([1.])
    """
    if key is None and isinstance(outputs, Tensor):
        return outputs
    found = outputs if key is None else at(outputs, key)
    named = named_outputs(found)
    if key is None and named is not None:
        found = named.get(default)
    if isinstance(found, Tensor):
        return found
    raise TypeError(
        f"the model returned {described(outputs)}, but the objective needs "
        f"{f'a tensor, alone or under {default!r}' if key is None else f'a tensor at {key!r}'}. Say which output it "
        f"is, as in output={_example(outputs)}"
    )


def described(outputs: Any) -> str:
    """What a model returned, in words.

    Example:
        >>> described((1, 2)), described({"out": 1})
        ('a tuple of 2', "a dict with 'out'")
    """
    kind = type(outputs).__name__
    named = named_outputs(outputs)
    if named is not None:
        names = ", ".join(repr(name) for name, value in named.items() if value is not None)
        return f"a {kind} with {names}" if names else f"an empty {kind}"
    if isinstance(outputs, (tuple, list)):
        return f"a {kind} of {len(outputs)}"
    return f"a {kind}"


def at(outputs: Any, key: Key) -> Any:
    """One of the outputs; None if there is none of this name or index.

    Example:
        >>> at({"loss": 1.5}, "loss"), at((1.5, 2), 0), at((1.5, 2), "loss")
        (1.5, 1.5, None)
    """
    named = named_outputs(outputs)
    if isinstance(key, str):
        return None if named is None else named.get(key)
    values = list(named.values()) if named is not None else outputs
    if isinstance(values, (tuple, list)) and -len(values) <= key < len(values):
        return values[key]
    return None


def _example(outputs: Any) -> str:
    named = named_outputs(outputs)
    if named is not None:
        return repr(next((name for name, value in named.items() if isinstance(value, Tensor)), "name"))
    return "0" if isinstance(outputs, (tuple, list)) else "'name'"
