"""From a pure core to a flat graph of tensor operations. Imports foundation, step and torch.

`make_fx` runs the core once on fake tensors (no data) and writes down every operation, as `jax.jit`
does: Python values are constants of the graph, Python control flow is unrolled as it went, and what
depends on a tensor's *value* cannot be traced.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optree
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.foundation.errors import TracingError
from functrain.foundation.trees import flatten, unflatten
from functrain.step.execution import Core

_LIBRARIES = (Path(torch.__file__).parent, Path(optree.__file__).parent, Path(__file__).parents[1])
_DEPENDS_ON_DATA = ("DataDependentOutputException", "GuardOnDataDependentSymNode", "DynamicOutputShapeException")


class _Host:
    """Stands in for a host leaf while a core is traced; a core that computes with one fails loudly."""

    def __repr__(self) -> str:
        return "<a host value, which a compiled step cannot read>"


HOST = _Host()


@dataclass(frozen=True)
class Layout:
    """Where the tensors are in a tree: everything about it but the tensors and host values themselves."""

    spec: optree.PyTreeSpec
    is_tensor: tuple[bool, ...]

    @classmethod
    def of(cls, leaf_list: list[Any], spec: optree.PyTreeSpec) -> "Layout":
        """The layout of flattened leaves."""
        return cls(spec, tuple(isinstance(leaf, Tensor) for leaf in leaf_list))

    def tensors(self, leaf_list: list[Any]) -> list[Tensor]:
        """The tensors among the leaves."""
        return [leaf for leaf, is_tensor in zip(leaf_list, self.is_tensor) if is_tensor]

    def fill(self, tensors: list[Tensor], hosts: list[Any] | None = None) -> Any:
        """The tree with these tensors; host values are taken from `hosts`, a list of all leaves."""
        iterator = iter(tensors)
        host_leaves = [HOST] * len(self.is_tensor) if hosts is None else hosts
        return unflatten(
            self.spec,
            [next(iterator) if is_tensor else host for host, is_tensor in zip(host_leaves, self.is_tensor)],
        )


@dataclass(frozen=True)
class Graph:
    """A traced core.

    Attributes:
        module: takes the state's tensors, then the batch's; returns the new state's tensors (unless donated),
            then the other results'.
        out: layout of the results besides the carried state.
        random: whether it draws random numbers.
    """

    module: torch.fx.GraphModule
    out: Layout
    random: bool


def trace(
    core: Core, state: Layout, batch: Layout, examples: list[Tensor], *, donate: bool
) -> Graph:
    """Trace `core` for tensors like `examples` (the state's, then the batch's).

    With `donate`, the graph writes the new state into the old one's tensors.

    Raises:
        TracingError: naming the line that depends on a tensor's value.
    """
    n_state = sum(state.is_tensor)
    found: list[Layout] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        old = list(tensors[:n_state])
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

    module = _make_fx(core, flat, examples)
    return Graph(module, found[-1], _draws(module))


def _make_fx(core: Core, fn: Callable[..., Any], examples: list[Tensor]) -> torch.fx.GraphModule:
    try:
        with torch.no_grad():
            return make_fx(fn, tracing_mode="fake", _allow_non_fake_inputs=True)(*examples)
    except Exception as error:
        if type(error).__name__ not in _DEPENDS_ON_DATA:
            raise
        raise TracingError(
            f"the {core.name} step cannot be compiled: {_users_line(error)} needs the value of a tensor while the step "
            "is being traced (an if, a loop, .item(), a mask as index), but a compiled step is one fixed graph. Write it "
            "with torch.where or torch.cond, or run without compiling (compile=False)"
        ) from error


def _same_layout(core: Core, layout: Layout, old: list[Tensor], new_state: Any) -> list[Tensor]:
    leaf_list, spec = flatten(new_state)
    assert spec == layout.spec, f"{core.name} changed the structure of the state:\n{layout.spec}\n{spec}"
    new = layout.tensors(leaf_list)
    for before, after in zip(old, new):
        assert before.shape == after.shape and before.dtype == after.dtype, (
            f"{core.name} changed a leaf from {before.dtype}{list(before.shape)} to {after.dtype}{list(after.shape)}"
        )
    return new


def _draws(module: torch.fx.GraphModule) -> bool:
    return any(
        torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        for node in module.graph.nodes
        if node.op == "call_function"
    )


def _users_line(error: BaseException) -> str:
    """The innermost line that is not a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not any(Path(frame.filename).is_relative_to(library) for library in _LIBRARIES):
            return f'{frame.filename}, line {frame.lineno}, "{frame.line}"'
    return "an operation"
