"""Numbers are computed once."""

import torch
from torch._inductor.graph import GraphLowering
from torch._inductor.ir import ComputedBuffer
from torch._inductor.virtualized import V
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.compiler.patches import numbers_once
from functrain.compiler.patches.patch import applied


def corrected(moment: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return moment / (count * 2.0)


def buffers() -> list[tuple[int, ...]]:
    """The shapes of what the lowered graph keeps in memory."""
    examples = (torch.ones(64), torch.tensor(3))
    module = make_fx(corrected, tracing_mode="fake")(*examples)
    graph = GraphLowering(module, example_inputs=list(examples))
    with V.set_graph_handler(graph):
        graph.run(*examples)
    return [tuple(map(int, b.get_size())) for b in graph.buffers if isinstance(b, ComputedBuffer)]


def test_a_number_that_tensors_are_computed_with_is_kept_in_memory() -> None:
    assert buffers() == [(64,)]  # computed anew for each element
    with applied([numbers_once.PATCH]):
        assert buffers() == [(), (64,)]
