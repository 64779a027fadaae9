"""From a pure core to a flat graph of tensor operations.

`make_fx` runs the core once on fake tensors (no data) and writes down every operation, as `jax.jit`
does: Python values are constants of the graph, Python control flow is unrolled as it went, and what
depends on a tensor's *value* cannot be traced.
"""

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optree
import torch
import torch._functorch.config as functorch_config
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.compiler import sizes
from functrain.compiler.draws import KeptDraws, drop_unused_copies
from functrain.compiler.layout import Layout
from functrain.compiler.session import run_model
from functrain.foundation.errors import TracingError
from functrain.foundation.keys import torch_seed
from functrain.foundation.trees import flatten, leaves_with_paths
from functrain.step.execution import HOST, Core

_STANDARD_LIBRARY = Path(contextlib.__file__).parent
_LIBRARIES = (
    Path(torch.__file__).parent,
    Path(optree.__file__).parent,
    Path(__file__).parents[1],
    _STANDARD_LIBRARY,
)
_OPTIMIZERS = Path(torch.optim.__file__).parent
_DEPENDS_ON_DATA = ("DataDependentOutputException", "DynamicOutputShapeException")
_NO_DATA = ("Cannot access data pointer", "unallocated storage", ".numpy() is not supported")  # .numpy(), .tolist()


@dataclass(frozen=True)
class Graph:
    """A traced core.

    Attributes:
        module: takes the state's tensors, then the batch's; returns the new state's tensors (unless donated),
            then the other results'.
        out: layout of the results besides the carried state.
        random: whether it draws random numbers.
        unknown: the line that makes the first tensor whose size depends on values; empty if there is none.
    """

    module: torch.fx.GraphModule
    out: Layout
    random: bool
    unknown: str


def trace(core: Core, state: Layout, batch: Layout, examples: list[Tensor], *, donate: bool) -> Graph:
    """Trace `core` for tensors like `examples` (the state's, then the batch's).

    With `donate`, the graph writes the new state into the old one's tensors.

    Raises:
        TracingError: naming the line that depends on a tensor's value.
    """
    n_state = sum(state.is_tensor)
    found: list[Layout] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        old = list(tensors[:n_state])
        with KeptDraws(core.name):
            result = core.fn(state.fill(old), batch.fill(list(tensors[n_state:])))
        carried: list[Tensor] = []
        if core.carries_state:
            new_state, result = result
            carried = _same_layout(core, state, old, new_state)
        result_leaves, result_spec = flatten(result)
        found.append(Layout.of(result_leaves, result_spec))
        if donate:
            for before, after in zip(old, carried):
                if after is not before:
                    before.copy_(after)
            carried = []
        return carried + found[-1].tensors(result_leaves)

    def traced(unknown: str) -> torch.fx.GraphModule:
        with torch_seed(0, examples[0].device):  # `KeptDraws` moves the generators
            return _make_fx(core, flat, examples, unknown)

    module, unknown = _with_symbols_if_needed(traced)
    drop_unused_copies(module.graph)
    module.recompile()
    return Graph(module, found[-1], _draws(module), unknown)


def _with_symbols_if_needed(traced: Callable[[str], torch.fx.GraphModule]) -> tuple[torch.fx.GraphModule, str]:
    """What `traced` gives, and the line that makes the first size that needs a symbol, of which it is told."""
    unknown: list[sizes.UnknownSizeError] = []

    def without_symbols() -> torch.fx.GraphModule:
        try:
            return traced("")
        except sizes.UnknownSizeError as error:
            unknown.append(error)
            raise

    try:
        return run_model(without_symbols), ""
    except TracingError:
        if not unknown:
            raise
    try:
        return run_model(partial(traced, unknown[0].line)), unknown[0].line
    except TracingError:
        raise  # of what needs more than a size
    except Exception as error:  # torch has no symbols for an operation
        raise unknown[0] from error


def _make_fx(core: Core, fn: Callable[..., Any], examples: list[Tensor], unknown: str) -> torch.fx.GraphModule:
    """Trace `fn`; with symbols for sizes if there is an `unknown` one, which is the line that makes it."""
    try:
        # A mode of our own: make_fx's has symbols for unknown values too, with which `.item()` would pass here and
        # fail in the compiler, without the user's line.
        with torch.no_grad(), functorch_config.patch(fake_tensor_allow_unsafe_data_ptr_access=False):
            mode = sizes.fake_mode(symbols=bool(unknown))
            fakes = [mode.from_tensor(tensor) for tensor in examples]
            return make_fx(fn, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes)
    except Exception as error:
        needed = _what_is_missing(error)
        if needed is None:
            raise
        line = _users_line(error) or unknown or "an operation"
        message = (
            f"the {core.name} step cannot be compiled: {line} needs {needed} while the step is being traced, but a "
            "compiled step is one fixed graph"
        )
        raise (sizes.UnknownSizeError(message, line) if sizes.is_unknown(error) else TracingError(message)) from error


def _what_is_missing(error: Exception) -> str | None:
    """What a traced function asked for that is not there, and the way out; None for any other error."""
    way_out = "or run without compiling (compile=False; in a config compile: false)"
    if sizes.is_asked_for(error):
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


def _same_layout(core: Core, layout: Layout, old: list[Tensor], new_state: Any) -> list[Tensor]:
    leaf_list, spec = flatten(new_state)
    assert spec == layout.spec, f"{core.name} changed the structure of the state:\n{layout.spec}\n{spec}"
    new = layout.tensors(leaf_list)
    for path, before, after in zip(_tensor_paths(new_state), old, new):
        given, wanted = (after.dtype, after.shape, after.device), (before.dtype, before.shape, before.device)
        if given != wanted:
            raise TracingError(
                f"the {core.name} step cannot be compiled: it turns {path!r} from {_describe(before)} into "
                f"{_describe(after)}, but the state must keep its form. Keep the dtype and shape of what the "
                "model or the optimizer stores"
            )
    return [_strided_as(before, after) for before, after in zip(old, new)]


def _tensor_paths(tree: Any) -> list[str]:
    return [path for path, leaf in leaves_with_paths(tree) if isinstance(leaf, Tensor)]


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


def _strided_as(before: Tensor, after: Tensor) -> Tensor:
    """`after` laid out in memory as `before`, for which the program was compiled."""
    if before.stride() == after.stride():
        return after
    strided = torch.empty_strided(before.shape, before.stride(), dtype=before.dtype, device=before.device)
    return strided.copy_(after)


def _draws(module: torch.fx.GraphModule) -> bool:
    """Whether the graph, or the graph of a branch within it, draws random numbers."""
    return any(
        torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        for graph_module in module.modules()
        if isinstance(graph_module, torch.fx.GraphModule)
        for node in graph_module.graph.nodes
        if node.op == "call_function"
    )


def _users_line(error: BaseException) -> str:
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
