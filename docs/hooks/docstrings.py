"""Docstrings as the site needs them: the heading of examples, and arguments that a decorator adds."""

import inspect
import re
from importlib import import_module
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Changes what was read from the source."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section of an example: only "Examples" is one for griffe."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Take signature and docstring of `fit` from the function itself: its keywords are those of the settings."""
        if not any(str(each.value).startswith("takes(") for each in func.decorators):
            return
        real = getattr(import_module(func.parent.path), func.name)
        func.docstring.value = re.sub(r"^Example:$", "Examples:", inspect.getdoc(real) or "", flags=re.MULTILINE)
        func.parameters = griffe.Parameters(*map(_parameter, inspect.signature(real).parameters.values()))


def _parameter(own: inspect.Parameter) -> griffe.Parameter:
    default = None if own.default is own.empty else repr(own.default)
    kind = griffe.ParameterKind.keyword_only if own.kind is own.KEYWORD_ONLY else griffe.ParameterKind.positional_or_keyword
    return griffe.Parameter(own.name, annotation=inspect.formatannotation(own.annotation), kind=kind, default=default)
