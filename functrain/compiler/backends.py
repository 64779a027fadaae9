"""From a graph to something that runs fast: what calls torch's compilers. Imports foundation and torch."""

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from functrain.foundation.errors import FunctrainError

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

Program = Callable[..., Sequence[Tensor]]


def check(backend: str, mode: str) -> None:
    """Refuse what cannot be compiled for, before anything is traced.

    Raises:
        ValueError: naming what there is.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    known = ("eager", *torch.compiler.list_backends(exclude_tags=()))
    if backend not in known:
        raise ValueError(f"backend must be one of {', '.join(known)}; got {backend!r}")
    if mode != "default" and backend != "inductor":
        raise ValueError(f"mode={mode!r} is a mode of backend='inductor'; got backend={backend!r}")


def build(graph: torch.fx.GraphModule, examples: list[Tensor], *, backend: str, mode: str) -> Program:
    """Compile a flat graph without autograd for inputs like `examples`.

    The graph goes to the compiler directly: `torch.compile` would put Dynamo's guards before every call
    (measured 1.7 times the time per step of a tiny network), and shapes are checked by the caller anyway.

    Raises:
        FunctrainError: if there is no working C++ compiler.
    """
    if backend == "eager":
        return graph
    with torch.no_grad():
        if backend == "inductor":
            return _inductor(graph, examples, mode)
        return torch._dynamo.lookup_backend(backend)(graph, examples)


def _inductor(graph: torch.fx.GraphModule, examples: list[Tensor], mode: str) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # while torch 2.13 imports its own old parts
        importlib.import_module("torch._inductor.compile_fx")
        from torch._inductor import compile as compile_graph
        from torch._inductor import list_mode_options
        from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    options: dict[str, Any] = {} if mode == "default" else list_mode_options(mode)
    try:
        fake_mode = FakeTensorMode(shape_env=ShapeEnv())
        fakes = [fake_mode.from_tensor(example, static_shapes=True) for example in examples]
        # Without a shape environment (Dynamo would make one) inductor leaves its on-disk caches aside.
        with tracing(TracingContext(fake_mode)):
            return compile_graph(graph, fakes, options)  # type: ignore[arg-type]
    except Exception as error:
        for cause in _causes(error):
            if isinstance(cause, InvalidCxxCompiler):
                raise FunctrainError(
                    "compiling a step needs a C++ compiler, and none was found: install g++ or clang (or "
                    "name one in the environment variable CXX), or run without compiling (compile=False)"
                ) from error
            if isinstance(cause, CppCompileError):
                raise FunctrainError(
                    f"the C++ compiler failed on the compiled step: {cause}. Without compiling "
                    "(compile=False) it would run"
                ) from error
        raise


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        found.extend(e for e in (getattr(error, "inner_exception", None),) if e is not None)
        error = error.__cause__ or error.__context__
    return found
