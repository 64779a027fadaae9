"""Sizes that depend on the values of tensors, as of `x[mask]` or `nonzero`: symbols in a traced graph.

A graph without such sizes is traced without symbols: they would let pass what a compiled step cannot hold.
"""

from typing import Any

import torch
from torch._subclasses import FakeTensorMode


def fake_mode(*, symbols: bool) -> FakeTensorMode:
    """The mode in which a step is traced; with `symbols`, a size that is not known gets one."""
    if not symbols:
        return FakeTensorMode(allow_fallback_kernels=True, allow_non_fake_inputs=True)
    from torch.fx.experimental.symbolic_shapes import ShapeEnv  # imports sympy, which few steps need

    # Of sizes alone: a number that `.item()` reads would be a symbol too, and fail in the compiler without a line.
    environment = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=True)
    return FakeTensorMode(
        allow_fallback_kernels=True, allow_non_fake_inputs=True, shape_env=environment, static_shapes=True
    )


def fakes_of(graph: torch.fx.GraphModule) -> list[Any]:
    """The fake tensors that a graph was traced with: a compiler that gets them knows its symbols."""
    return [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
