"""Constants that a model or an objective makes are compiled by inductor with the values that eager steps see."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain.compiler.constants import constants_as_operations


def objective(model, batch):
    inputs, targets = batch
    outputs = model(inputs)
    count = torch.tensor(float(len(inputs)))
    integer, truth, infinite = torch.tensor(3), torch.tensor(True), torch.tensor(float("inf"), dtype=torch.float64)
    short, long, none = torch.tensor([1.0, 2.0, 3.0]), torch.as_tensor(np.arange(12.0)), torch.tensor([])
    counted = torch.tensor(0.0)
    counted += outputs.detach().mean()
    total = (outputs - targets).square().sum() * torch.stack([count, count * 2]).mean() / count.expand(2)[0]
    metrics = {
        "times": outputs.mean() * count,
        "constant": torch.tensor(7.0),
        "indexed": outputs[integer].sum() + outputs[torch.tensor(-1)].sum(),
        "chosen": torch.where(truth, outputs.sum(), count),
        "limited": torch.minimum(infinite, outputs.sum()),
        "viewed": (outputs * count.view(1, 1).expand_as(outputs)).sum() + count.reshape(1).sum(),
        "short": (outputs * short).sum() + none.sum(),
        "long": long.sum() * outputs.sum() + torch.cat([outputs[0], long]).sum(),
        "in place": counted,
        "both": (outputs.sum(), count),
    }
    return ft.Loss(total, count, metrics)


@pytest.fixture
def step():
    """A state of a network of that objective, and a batch."""
    generator = torch.Generator().manual_seed(3)
    inputs, targets = (torch.randn(5, 3, generator=generator) for _ in range(2))
    return ft.init_state(nn.Linear(3, 3), objective, ft.optim.sgd(0.1), precision="fp64"), (inputs, targets)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_constants_of_every_kind_are_compiled_with_their_values(backend, step, assert_close):
    assert_close(ft.compile(ft.train_step, backend=backend)(*step), ft.train_step(*step), 1e-10)


def test_no_0d_constant_is_left_to_inductor(step):
    def numbers(x):
        return [x * torch.tensor(2.0), torch.tensor(float("-inf")), x + torch.tensor(3), x * torch.tensor([1.0, 2.0])]

    graph = make_fx(numbers)(torch.ones(2))
    expected = graph(torch.ones(2))
    constants_as_operations(graph.graph)
    graph.recompile()
    assert [getattr(graph, node.target).ndim for node in graph.graph.find_nodes(op="get_attr")] == [1]
    torch.testing.assert_close(graph(torch.ones(2)), expected, rtol=0, atol=0)
