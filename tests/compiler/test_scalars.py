"""Numbers are computed once, and inductor is as it was afterwards."""

import sys

import pytest
import torch
from torch._inductor.graph import GraphLowering
from torch._inductor.ir import ComputedBuffer
from torch._inductor.virtualized import V
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.compiler import scalars


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
    with scalars.computed_once():
        assert buffers() == [(), (64,)]


def test_inductor_is_as_it_was_afterwards() -> None:
    before = GraphLowering.run_node
    with pytest.raises(ZeroDivisionError), scalars.computed_once():  # noqa: PT012 - the block is what is tested
        assert GraphLowering.run_node is not before
        raise ZeroDivisionError
    assert GraphLowering.run_node is before


def test_a_release_without_it_compiles_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._inductor.ir", None)
    before = GraphLowering.run_node
    with scalars.computed_once():
        assert GraphLowering.run_node is before
