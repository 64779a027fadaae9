"""The engines that compile a core: functrain's own, which makes packages, and `torch.compile` alone."""

import importlib
import traceback
import warnings
from pathlib import Path

import torch

from functrain.compiler import torch_engine
from functrain.compiler.request import Made, Request

_PACKAGE = Path(__file__).parents[1]
_OURS = (Path(__file__).parent, _PACKAGE / "foundation", _PACKAGE / "step" / "execution.py")
_MOVED = (AttributeError, ImportError, TypeError)  # what a name or signature that torch has changed gives


class EngineWarning(UserWarning):
    """A step is compiled by `torch.compile` alone, since this release of torch lacks what functrain's engine uses."""


def make(engine: str, request: Request) -> Made:
    """Compile a core with the engine of this name.

    The engine "package" uses internals of torch. Where a release has moved them, the engine "torch" takes its place,
    with a warning; errors of the model's code are raised as they are.
    """
    if engine == "torch":
        return torch_engine.make(request)
    try:
        package_engine = importlib.import_module("functrain.compiler.package_engine")
        return package_engine.make(request)
    except _MOVED as error:
        if request.mode != "default" or not is_of_our_own(error):
            raise
        said = f"{type(error).__name__}: {error}"
    warnings.warn(
        f"torch {torch.__version__} lacks what functrain's own compilation uses ({said}), so the step is compiled by "
        "torch.compile alone (engine='torch'): it is slower, each start compiles anew, and results are rounded "
        "otherwise. Install a release that functrain was tested with (docs/versions.md)",
        EngineWarning,
        stacklevel=2,
    )
    return torch_engine.make(request)


def is_of_our_own(error: BaseException) -> bool:
    """Whether an error was raised by a line of the compiler's, and not while a step, and so a model, was running."""
    frames = traceback.extract_tb(error.__traceback__)
    files = [Path(frame.filename) for frame in frames if not frame.filename.startswith("<")]
    files = [file for file in files if not file.is_relative_to(Path(importlib.__file__).parent)]
    ours = [any(file.is_relative_to(folder) for folder in _OURS) for file in files]
    within_step = any(file.is_relative_to(_PACKAGE) and not own for file, own in zip(files, ours))
    return bool(ours) and ours[-1] and not within_step
