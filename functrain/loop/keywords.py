"""A function of a settings value, called with the settings as keyword arguments."""

import difflib
import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from functrain.loop.settings import declared

P = ParamSpec("P")
Settings = TypeVar("Settings")
State = TypeVar("State")
Result = TypeVar("Result")


def takes(
    settings: Callable[P, Settings],
) -> Callable[[Callable[[State, Any, Settings], Result]], Callable[Concatenate[State, Any, P], Result]]:
    """Let a function `(state, loader, settings)` be called as `(state, loader, *, keyword=...)`.

    Type checkers see the keywords of the settings' class; so do `help` and `inspect.signature`. In its docstring
    "{settings}" becomes their documentation.
    """

    def decorate(function: Callable[[State, Any, Settings], Result]) -> Callable[Concatenate[State, Any, P], Result]:
        names = [each.name for each in declared()]

        @functools.wraps(function)
        def call(state: State, loader: Any, *positional: P.args, **keywords: P.kwargs) -> Result:
            if positional:
                raise TypeError(
                    f"{function.__name__} takes a state and a loader by position, and all else by keyword, as in "
                    f"epochs=10; got {len(positional)} more by position"
                )
            for name in keywords:
                if name not in names:
                    near = difflib.get_close_matches(name, names, 1)
                    hint = f"; did you mean {near[0]!r}?" if near else f"; it has: {', '.join(names)}"
                    raise TypeError(f"{function.__name__} has no argument {name!r}{hint}")
            return function(state, loader, settings(**keywords))  # type: ignore[call-arg]

        first = list(inspect.signature(function).parameters.values())[:2]
        own = inspect.signature(settings).parameters
        call.__signature__ = inspect.Signature([*first, *(own[name] for name in names)])  # type: ignore[attr-defined]
        call.__doc__ = (function.__doc__ or "").replace("        {settings}\n", _documentation())
        return call

    return decorate


def _documentation() -> str:
    entries = [f"{each.name}: {each.doc}" for each in declared()]
    wrapped = [textwrap.wrap(text, 112, subsequent_indent="    ", break_long_words=False) for text in entries]
    return "".join(f"        {line}\n" for lines in wrapped for line in lines)
