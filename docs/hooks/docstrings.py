"""Docstrings as the site needs them: the heading of examples, a line for each argument, arguments of a decorator."""

import inspect
import re
from importlib import import_module
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
MODULES = re.compile(r"\b(?:\w+\.)+(?=\w)")
SEVERAL = re.compile(r"^    ((?:\w+, )+\w+)(: .*(?:\n {5,}.*)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Changes what was read from the source."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Write it as griffe reads it."""
        if obj.docstring is not None:
            obj.docstring.value = _readable(obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Take signature and docstring of `fit` from the function itself: its keywords are those of the settings."""
        if not any(str(each.value).startswith("takes(") for each in func.decorators):
            return
        real = getattr(import_module(func.parent.path), func.name)
        func.docstring.value = _readable(inspect.getdoc(real) or "")
        func.parameters = griffe.Parameters(*map(_parameter, inspect.signature(real).parameters.values()))


def _readable(text: str) -> str:
    """A section "Examples", and an entry for each of several names with one description."""
    return SEVERAL.sub(_entries, EXAMPLE.sub("Examples:", text))


def _entries(match: re.Match[str]) -> str:
    return "\n".join(f"    {name}{match[2]}" for name in match[1].split(", "))


def _parameter(own: inspect.Parameter) -> griffe.Parameter:
    default = None if own.default is own.empty else repr(own.default)
    annotation = MODULES.sub("", inspect.formatannotation(own.annotation))
    is_keyword = own.kind is own.KEYWORD_ONLY
    kind = griffe.ParameterKind.keyword_only if is_keyword else griffe.ParameterKind.positional_or_keyword
    return griffe.Parameter(own.name, annotation=annotation, kind=kind, default=default)
