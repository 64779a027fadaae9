"""From a pure core to a flat graph of tensor operations.

`make_fx` runs the core once on fake tensors (no data) and writes down every operation, as `jax.jit`
does: Python values are constants of the graph, Python control flow is unrolled as it went, and what
depends on a tensor's *value* cannot be traced.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.compiler import sizes
from functrain.compiler.decompositions import Table, made_ready
from functrain.compiler.draws import KeptDraws, drop_unused_copies
from functrain.compiler.flat import FlatCore
from functrain.compiler.layout import Layout
from functrain.compiler.patches import data_pointers
from functrain.compiler.patches.patch import applied
from functrain.compiler.refusals import UnknownSizeError, refused
from functrain.compiler.session import run_model
from functrain.foundation.errors import TracingError
from functrain.foundation.keys import torch_seed
from functrain.step.execution import Core


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


def trace(
    core: Core, state: Layout, batch: Layout, examples: list[Tensor], *, donate: bool, table: Table | None = None
) -> Graph:
    """Trace `core` for tensors like `examples` (the state's, then the batch's).

    With `donate`, the graph writes the new state into the old one's tensors. With a `table` of decompositions it is
    brought to the form that inductor takes.

    Raises:
        TracingError: naming the line that depends on a tensor's value.
    """
    flat = FlatCore(core, state, batch, donate=donate)

    def flat_and_kept(*tensors: Tensor) -> list[Tensor]:
        with KeptDraws(core.name):
            return flat(list(tensors))

    def traced(unknown: str) -> torch.fx.GraphModule:
        with torch_seed(0, examples[0].device):  # `KeptDraws` moves the generators
            return _make_fx(core, flat_and_kept, examples, unknown, table)

    module, unknown = _with_symbols_if_needed(traced)
    drop_unused_copies(module.graph)
    if table is not None and not unknown:
        module = made_ready(module, table)
    module.recompile()
    assert flat.out is not None
    return Graph(module, flat.out, _draws(module), unknown)


def _with_symbols_if_needed(traced: Callable[[str], torch.fx.GraphModule]) -> tuple[torch.fx.GraphModule, str]:
    """What `traced` gives, and the line that makes the first size that needs a symbol, of which it is told."""
    unknown: list[UnknownSizeError] = []

    def without_symbols() -> torch.fx.GraphModule:
        try:
            return traced("")
        except UnknownSizeError as error:
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


def _make_fx(
    core: Core, fn: Callable[..., Any], examples: list[Tensor], unknown: str, table: Table | None
) -> torch.fx.GraphModule:
    """Trace `fn`; with symbols for sizes if there is an `unknown` one, which is the line that makes it."""
    try:
        # A mode of our own: make_fx's has symbols for unknown values too, with which `.item()` would pass here and
        # fail in the compiler, without the user's line.
        with torch.no_grad(), applied([data_pointers.PATCH]):
            mode = sizes.fake_mode(symbols=bool(unknown))
            fakes = [mode.from_tensor(tensor) for tensor in examples]
            return make_fx(fn, table, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes)
    except Exception as error:
        told = refused(core.name, error, unknown)
        if told is None:
            raise
        raise told from error


def _draws(module: torch.fx.GraphModule) -> bool:
    """Whether the graph, or the graph of a branch within it, draws random numbers."""
    return any(
        torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        for graph_module in module.modules()
        if isinstance(graph_module, torch.fx.GraphModule)
        for node in graph_module.graph.nodes
        if node.op == "call_function"
    )
