"""What cannot be compiled, in words: what code asked for that is not there while it is traced, and in which line."""

import contextlib
import traceback
from pathlib import Path
from typing import Any

import optree
import torch

from functrain.foundation.errors import TracingError
from functrain.step.execution import HOST

_STANDARD_LIBRARY = Path(contextlib.__file__).parent
_LIBRARIES = (
    Path(torch.__file__).parent,
    Path(optree.__file__).parent,
    Path(__file__).parents[1],
    _STANDARD_LIBRARY,
)
_OPTIMIZERS = Path(torch.optim.__file__).parent
_DEPENDS_ON_DATA = ("ValueNeededError", "DataDependentOutputException", "DynamicOutputShapeException")
_NO_DATA = ("Cannot access data pointer", "unallocated storage", ".numpy() is not supported")  # .numpy(), .tolist()


class ValueNeededError(Exception):
    """Code asked for the value of a tensor while it was traced."""


class UnknownSizeError(TracingError):
    """A size depends on the values of tensors, and the step was traced without symbols.

    Args:
        message: for the user.
        line: of the user's code that makes such a tensor.
    """

    def __init__(self, message: str, line: str) -> None:
        super().__init__(message)
        self.line = line


def refused(name: str, error: Exception, line: str = "") -> TracingError | None:
    """An error that says which line asks for what a compiled step cannot have; None for any other error.

    Args:
        name: of the step.
        error: what tracing raised.
        line: that is blamed where the error tells none.
    """
    needed = _what_is_missing(error)
    if needed is None:
        return None
    line = users_line(error) or line or "an operation"
    message = (
        f"the {name} step cannot be compiled: {line} needs {needed} while the step is being traced, but a "
        "compiled step is one fixed graph"
    )
    return UnknownSizeError(message, line) if _is_unknown(error) else TracingError(message)


def _what_is_missing(error: Exception) -> str | None:
    """What a traced function asked for that is not there, and the way out; None for any other error."""
    way_out = "or run without compiling (compile=False; in a config compile: false)"
    if _is_asked_for(error):
        return (
            "to know how many elements a mask or nonzero() chooses (as an if, a loop, len(), int() or float() does; "
            "take .shape[0] as it is, or all elements and torch.where in place of a mask as index, "
            f"{way_out})"
        )
    if type(error).__name__ in _DEPENDS_ON_DATA or any(text in str(error) for text in _NO_DATA):
        return (
            "the value of a tensor (as an if, a loop, .item(), .numpy() or a mask as index does; write it "
            f"with torch.where or torch.cond, {way_out})"
        )
    if type(HOST).__name__ in str(error):
        return f"a value of the batch that is no tensor (make it one, 0-d if need be, {way_out})"
    return None


def users_line(error: BaseException) -> str:
    """The innermost line that is not a library's; else that of an optimizer of torch's (by from_torch); else ""."""
    # Source that was made at run time has no file: wrappers of torch's, mostly.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    files = [Path(frame.filename) for frame in frames]
    users = [not any(file.is_relative_to(library) for library in _LIBRARIES) for file in files]
    optimizers = [file.is_relative_to(_OPTIMIZERS) for file in files]
    for wanted in (users, optimizers):
        for frame, is_wanted in zip(reversed(frames), reversed(wanted)):
            if is_wanted:
                return f'{frame.filename}, line {frame.lineno}, "{frame.line}"'
    return ""


def _is_unknown(error: BaseException) -> bool:
    """Whether tracing failed at a size that is not known, for which there was no symbol."""
    return type(error).__name__ == "DynamicOutputShapeException"


def _is_asked_for(error: BaseException) -> bool:
    """Whether tracing failed where the number behind a symbol is asked for, as an `if` or `len()` does."""
    return type(error).__name__ == "GuardOnDataDependentSymNode"


def chooses(func: Any, args: Any) -> bool:
    """Whether an operation chooses elements by their values. An index has the tag too, but only a mask does so."""
    if func is torch.ops.aten.index.Tensor:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return torch.Tag.dynamic_output_shape in func.tags
