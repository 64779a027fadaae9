"""Runs a model's code for tracing and recording: as an eager step does, and then as torch.compile does."""

from collections.abc import Callable
from typing import TypeVar

from functrain.compiler.kept_calls import KeptCalls
from functrain.compiler.patches import nested_compilers
from functrain.compiler.patches.patch import applied
from functrain.foundation.errors import TracingError
from functrain.foundation.recursion import deep_calls
from functrain.foundation.torch_internals import compiling
from functrain.step.execution import run_again

T = TypeVar("T")


def run_model(fn: Callable[[], T]) -> T:
    """The result of `fn`, which runs a model's code; after an error it runs again, within `compiling`.

    Libraries ask `torch.compiler.is_compiling()` before they read a tensor's value or call a kernel that cannot be
    traced. Some also leave out what they need, such as a default mask. So what runs without the flag stays without it.

    Raises:
        Exception: what the first run raised, or the second if that alone is a `TracingError`.
    """
    with deep_calls(), applied([nested_compilers.PATCH]), KeptCalls():
        try:
            return run_again(fn)
        except Exception as first:
            try:
                with compiling():
                    return run_again(fn)
            except Exception as second:
                use_second = isinstance(second, TracingError) and not isinstance(first, TracingError)
                raise (second if use_second else first) from None
