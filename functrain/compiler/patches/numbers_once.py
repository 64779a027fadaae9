"""Computes the numbers of a compiled step once, and not for each element.

Inductor computes what is cheap where it is used: a step's bias correction (two powers in double precision), its divisor
and its guard stood within the loop over all parameters, at each 16 elements. On a CPU that was half of a step's time
(figures in docs/decisions.md).
"""

import contextlib
import importlib
from typing import Any

from functrain.compiler.patches.patch import Patch, replaced


def _enter() -> contextlib.AbstractContextManager[Any]:
    """Let inductor give a number on the CPU that tensors are computed with a place in memory."""
    graph = importlib.import_module("torch._inductor.graph").GraphLowering
    ir = importlib.import_module("torch._inductor.ir")
    run_node = graph.run_node

    def run_and_keep(self: Any, node: Any) -> Any:
        result = run_node(self, node)
        if _is_number(node) and not all(map(_is_number, node.users)):
            box = getattr(result, "data", None)
            if isinstance(box, ir.StorageBox) and isinstance(box.data, ir.Pointwise) and box.get_read_names():
                box.realize()
        return result

    return replaced(graph, "run_node", run_and_keep)


def _is_number(node: Any) -> bool:
    value = node.meta.get("val")
    if not getattr(value, "is_cpu", False):
        return False
    count = value.numel()
    return isinstance(count, int) and count == 1  # a size that depends on the data is a SymInt, and may not be asked


PATCH = Patch(
    name="numbers_once",
    does="gives each 0-d result on a CPU that tensors are computed with a place in memory",
    gain="87 to 95 ms a step to 64 (4 x Linear(2048) with AdamW); 121 to 161 us to 105 to 124 (64-64-64-10)",
    checked=("2.11", "2.13", "2.15"),
    needed="tests/compiler/patches/test_numbers_once.py: one buffer without it; and python -m benchmarks",
    enter=_enter,
)
