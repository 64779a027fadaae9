"""Rewrites a graph's 0-d constants as operations, which inductor can view, broadcast and stack like any tensor.

A model or an objective makes such a constant with `torch.tensor(8.0)`. Inductor keeps a 0-d constant as a bare number,
and its views (`unsqueeze`, `expand`) fail on one.
"""

from typing import Any

import torch
from torch.fx import Graph, Node


def constants_as_operations(graph: Graph) -> None:
    """Replace the 0-d constants of a graph by `full`; inductor calls this before its own passes."""
    for node in graph.find_nodes(op="get_attr"):
        value = _number(graph, node)
        if value is None:
            continue
        with graph.inserting_before(node):
            form: Any = {"dtype": value.dtype, "device": value.device}
            full = graph.call_function(torch.ops.aten.full.default, ([], value.item()), form)
        full.meta.update(node.meta)
        node.replace_all_uses_with(full)
        graph.erase_node(node)


def _number(graph: Graph, node: Node) -> torch.Tensor | None:
    """The real 0-d tensor that a node reads; None if it reads anything else."""
    value = getattr(graph.owning_module, str(node.target), None)
    plain = isinstance(value, torch.Tensor) and value.ndim == 0 and not value.is_complex()
    return value if plain else None
