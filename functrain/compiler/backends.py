"""From a graph to something that runs fast.

With inductor that is an ahead-of-time package, kept in the user's store for the next start. The same pipeline
serves a run's first start and every later one, so that its bits are the same.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from functrain.compiler import packages
from functrain.compiler.packages import Loaded
from functrain.compiler.patches import COMPILING
from functrain.compiler.patches.patch import Patch
from functrain.compiler.sizes import fakes_of
from functrain.compiler.store import default_store
from functrain.foundation.errors import FunctrainError
from functrain.foundation.scratch import scratch_folder
from functrain.foundation.summation import repeatable_sums

_WRONG_STRIDES = "view size is not compatible with input tensor's size and stride"

Key = Callable[[Sequence[Patch]], str]  # of a program, by the patches that it was to be compiled with


def _no_key(_patches: Sequence[Patch]) -> str:
    return ""


def build(
    graph: torch.fx.GraphModule,
    examples: list[Tensor],
    *,
    backend: str,
    mode: str,
    key: Key = _no_key,
    symbols: bool = False,
) -> Loaded:
    """Compile a flat graph without autograd to a program for inputs like `examples`.

    The graph goes to the compiler directly: `torch.compile` would put Dynamo's guards before every call
    (measured 1.7 times the time per step of a tiny network), and shapes are checked by the caller anyway.

    Args:
        key: what inductor's program is kept under in the store.
        symbols: whether sizes in the graph depend on the values of tensors.

    Raises:
        FunctrainError: if there is no working C++ compiler.
    """
    if backend == "inductor":
        return _build_package(graph, examples, mode, key)
    program: Callable[..., Any] = graph
    if backend != "eager":
        options = {"fw_compiler": _with_any_strides} if backend == "aot_eager" else {}
        with torch.no_grad():
            program = torch._dynamo.lookup_backend(backend)(graph, fakes_of(graph) if symbols else examples, **options)

    def run(tensors: list[Tensor]) -> list[Tensor]:
        with repeatable_sums(examples[0].device):
            try:
                return list(program(*tensors))
            except RuntimeError as error:
                if _WRONG_STRIDES not in str(error):
                    raise
                raise _layout_unknown(backend) from error

    return Loaded(run, "")


def _with_any_strides(graph: torch.fx.GraphModule, _examples: list[Tensor]) -> Callable[..., Any]:
    """Run a graph operation by operation, with copies where a view is not possible.

    Some results lie in memory otherwise than torch's rules for tracing say, such as the gradient of softplus. In this
    graph nothing is written through a view, so that a copy has the same values.
    """
    for view in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        view.target = torch.ops.aten.reshape.default
    graph.recompile()
    return graph


def _layout_unknown(backend: str) -> FunctrainError:
    return FunctrainError(
        f"backend={backend!r} cannot run this step: an operation's result lies in memory otherwise than torch's rules "
        "for tracing say, and a view of it fails. torch.compile has the same fault with this backend. Use the default, "
        "backend='inductor', or backend='aot_eager', or run without compiling (compile=False; in a config "
        "compile: false)"
    )


def kept(key: Key, device: torch.device) -> Loaded | None:
    """The program that an earlier start built, if the store has it; without patches if it could not be built with."""
    store = default_store()
    path = store.get(key(COMPILING)) or store.get(key(()))
    return None if path is None else packages.load(path, device)


def turn(key: Key) -> AbstractContextManager[None]:
    """A turn to compile a program, in which the other ranks wait that need it, too."""
    return default_store().turn(key(COMPILING))


def _build_package(graph: torch.fx.GraphModule, examples: list[Tensor], mode: str, key: Key) -> Loaded:
    with scratch_folder() as folder:
        made = folder / "program.pt2"
        patches = packages.make(graph, examples, mode, made)
        path = default_store().put(key(patches), made)
        return packages.load(path or made, examples[0].device)
