"""Errors of a network's modules, told by the module's name and the shapes of its inputs."""

import inspect
from types import FrameType
from typing import Any

from torch import Tensor, nn

from functrain.foundation.errors import DataError


class ModuleInputError(DataError, RuntimeError, ValueError):
    """A module of the network cannot take the input that it was given. (Torch's own error is one of the last two.)"""


def named_by_module(error: RuntimeError | IndexError | ValueError, net: nn.Module) -> Exception:
    """What to raise for an error of torch in the forward pass: the error itself, unless a module of torch.nn raised it.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(3, 1))
        >>> try:
        ...     net(torch.ones(8, 2))
        ... except RuntimeError as error:
        ...     print(named_by_module(error, net))
        the network's module '0', Linear(in_features=3, out_features=1, bias=True), cannot take an input of shape
        [8, 2], float32 (torch: mat1 and mat2 shapes cannot be multiplied (8x2 and 3x1)). Look at the batch and at
        the modules before this one
    """
    frames = _forward_frames(error)
    if not frames or type(error) not in (RuntimeError, IndexError, ValueError) or "memory" in str(error):
        return error
    module = frames[-1].f_locals["self"]
    if not type(module).__module__.startswith("torch.nn."):
        return error
    path = next((name for name, each in net.named_modules() if each is module), None)
    if path is None:  # a module of the objective's
        return error
    where = f"module {path!r}, " if path else ""
    given = " and ".join(_inputs(frames[-1])) or "its input"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModuleInputError(
        f"the network's {where}{type(module).__name__}({module.extra_repr()}), cannot take an input of {given} "
        f"(torch: {reason}). Look at the batch and at the modules before this one"
    )


def _forward_frames(error: BaseException) -> list[FrameType]:
    """The calls of modules that an error went through, the outermost first."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "forward" and isinstance(frame.f_locals.get("self"), nn.Module):
            frames.append(frame)
        trace = trace.tb_next
    return frames


def _inputs(frame: FrameType) -> list[str]:
    names, varargs, _, values = inspect.getargvalues(frame)
    given: list[Any] = [values[name] for name in names[1:]] + list(values[varargs] if varargs else ())
    return [
        f"shape {list(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
        for value in given
        if isinstance(value, Tensor)
    ]
