"""Numbers that a compiled step computes once, and not for each element.

Inductor computes what is cheap where it is used: a step's bias correction (two powers in double precision), its divisor
and its guard stood within the loop over all parameters, at each 16 elements. On a CPU that was half of a step's time
(figures in docs/decisions.md).
"""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def computed_once() -> Iterator[None]:
    """Within, inductor gives a number on the CPU that tensors are computed with a place in memory.

    This changes a method of inductor's: `inductor.hastened` sees to it that one thread at a time does.

    Raises:
        ImportError, AttributeError: in a release of torch that has no such method.
    """
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

    graph.run_node = run_and_keep
    try:
        yield
    finally:
        graph.run_node = run_node


def _is_number(node: Any) -> bool:
    value = node.meta.get("val")
    if not getattr(value, "is_cpu", False):
        return False
    count = value.numel()
    return isinstance(count, int) and count == 1  # a size that depends on the data is a SymInt, and may not be asked
