"""Sums whose order threads would decide, in a fixed order.

Compiled for a CPU, `index_put(accumulate=True)` (the gradient of `x[index]` or of a table of embeddings) adds
atomically from several threads: which of two addends for one place comes first, and so how their sum is rounded,
differs from call to call. `scatter_add` gives the same bits each time: inductor leaves it to torch's own kernel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

OPTIONS = {"cpp.fallback_scatter_reduce_sum": True}  # inductor's default: `scatter_add` is torch's own kernel

_aten = torch.ops.aten
_ACCUMULATING = (_aten.index_put.default, _aten._unsafe_index_put.default)
_MASKED = (_aten._unsafe_masked_index_put_accumulate.default,)

Index = list[Tensor | None]


def order_sums(graph: Graph) -> None:
    """Replace a graph's accumulating writes on CPUs; inductor calls it before its own passes."""
    for target in (*_ACCUMULATING, *_MASKED):
        for node in graph.find_nodes(op="call_function", target=target):
            base, mask, indices, values = _arguments(node)
            if values is not None and _order_matters(node, indices):
                _replace(graph, node, [base, values, mask, *indices])


def added_in_order(base: Tensor, values: Tensor, mask: Tensor | None, *indices: Tensor | None) -> Tensor:
    """`base.index_put(indices, values, accumulate=True)`, of the values where `mask` is true.

    Example:
        >>> index = torch.tensor([1, 1, 0])
        >>> added_in_order(torch.zeros(2), torch.tensor([1.0, 2.0, 4.0]), None, index)
        tensor([4., 3.])
    """
    positions = torch.arange(base.numel(), device=base.device).view(base.shape)
    if mask is None:
        places = _aten.index(positions, indices)
    else:
        places = _aten._unsafe_masked_index(positions, mask, indices, 0)
        values = torch.where(mask, values, 0)
    flat = base.reshape(-1).scatter_add(0, places.reshape(-1), values.expand(places.shape).reshape(-1))
    return flat.view(base.shape)


def _arguments(node: Node) -> tuple[Node, Node | None, list[Node | None], Node | None]:
    """Base, mask, indices and values, of which there are none if nothing is accumulated."""

    def plain(base: Node, indices: Any, values: Node, accumulate: bool = False) -> Any:
        return base, None, list(indices), values if accumulate else None

    def masked(base: Node, mask: Node, indices: Any, values: Node) -> Any:
        return base, mask, list(indices), values

    return (masked if node.target in _MASKED else plain)(*node.args, **node.kwargs)  # type: ignore[arg-type]


def _order_matters(node: Node, indices: list[Node | None]) -> bool:
    """Whether it sums floating-point numbers on a CPU. (A mask as index names each place once.)"""
    value = node.meta["val"]
    inexact = value.dtype.is_floating_point or value.dtype.is_complex
    masks = any(index is not None and index.meta["val"].dtype in (torch.bool, torch.uint8) for index in indices)
    return value.device.type == "cpu" and inexact and not masks


def _replace(graph: Graph, node: Node, inputs: list[Node | None]) -> None:
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    given = [n for n in inputs if n is not None]

    def ordered(*tensors: Tensor) -> Tensor:
        rest = iter(tensors)
        return added_in_order(*(None if n is None else next(rest) for n in inputs))  # type: ignore[arg-type]

    examples = [n.meta["val"] for n in given]
    with node.meta["val"].fake_mode:
        steps = make_fx(ordered, decomposition_table=select_decomp_table())(*examples).graph
    with graph.inserting_before(node):
        result = graph.graph_copy(steps, dict(zip(steps.find_nodes(op="placeholder"), given)))
    assert isinstance(result, Node)
    node.replace_all_uses_with(result)
    graph.erase_node(node)
