"""Bins of confidences: the same ones by search, eagerly, and by comparison, within a graph."""

import pytest
import torch

from functrain.metrics.probabilities import bin_of


@pytest.mark.parametrize("bins", [1, 3, 10, 15, 1000, 1025])
def test_a_graph_finds_the_bins_of_eager_calls_at_and_beside_the_edges(bins):
    edges = torch.arange(bins + 1, dtype=torch.float64) / bins
    beside = [torch.nextafter(edges, torch.full_like(edges, end)) for end in (-1.0, 2.0)]
    strange = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0], dtype=torch.float64)
    confidence = torch.cat([edges, *beside, torch.rand(1000, dtype=torch.float64), strange])
    eager = bin_of(confidence, bins)
    assert torch.equal(eager[: bins + 1], torch.arange(bins + 1).clamp(max=bins - 1))
    assert torch.equal(eager[bins + 1 : 2 * bins + 2], (torch.arange(bins + 1) - 1).clamp(min=0))
    assert eager[-4:].tolist() == [bins - 1, bins - 1, 0, 0]
    compiled = torch.compile(bin_of, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(confidence, bins), eager)
    assert torch.equal(torch.vmap(lambda row: bin_of(row, bins))(confidence[None])[0], eager)
