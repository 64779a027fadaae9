"""A change of torch's internals while a step is traced or compiled, as a value; and applying those that fit."""

import contextlib
import functools
import importlib
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_one_at_a_time = threading.RLock()
_CPU = torch.device("cpu")


def _no_options(_device: torch.device) -> dict[str, Any]:
    return {}


class PatchWarning(UserWarning):
    """A step was compiled without functrain's changes of torch, since with them the compilation failed."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A change that is in force for the time of a context.

    Attributes:
        name: stands in cache keys, in warnings and in what a run records.
        does: what it changes.
        gain: what was measured, or which fault it avoids.
        checked: releases of torch on which its test passed.
        needed: how to tell that it still helps, or is still needed.
        enter: makes the change. It raises ImportError or AttributeError in a release that lacks what it changes.
        options: settings of inductor's for programs of a device, besides.
    """

    name: str
    does: str
    gain: str
    checked: tuple[str, ...]
    needed: str
    enter: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    options: Callable[[torch.device], dict[str, Any]] = _no_options


@dataclass(frozen=True)
class Applied:
    """The patches in force.

    Attributes:
        names: of those that fit this release of torch.
        options: inductor's settings that they ask for.
    """

    names: tuple[str, ...]
    options: Mapping[str, Any]


@contextlib.contextmanager
def applied(patches: Sequence[Patch], device: torch.device = _CPU) -> Iterator[Applied]:
    """Apply the patches that fit this release of torch, for programs of a device; one thread at a time is within."""
    with _one_at_a_time, contextlib.ExitStack() as stack:
        names: list[str] = []
        options: dict[str, Any] = {}
        for patch in patches:
            with contextlib.suppress(ImportError, AttributeError):  # another release's internals
                asked = patch.options(device)
                _require(asked)
                stack.enter_context(patch.enter())
                options |= asked
                names.append(patch.name)
        yield Applied(tuple(names), options)


def _require(options: Mapping[str, Any]) -> None:
    """Raise AttributeError if inductor has no such settings."""
    for name in options:
        functools.reduce(getattr, name.split("."), importlib.import_module("torch._inductor.config"))


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within, `owner` has another value under a name that it must have."""
    before = inspect.getattr_static(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
