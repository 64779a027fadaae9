import pytest
import torch
from torch import nn

from functrain.models import MLP


def test_without_hidden_layers_it_is_linear():
    torch.manual_seed(0)
    model = MLP(3, 2, depth=0)
    (layer,) = model.layers
    inputs = torch.randn(4, 3)
    assert torch.equal(model(inputs), nn.functional.linear(inputs, layer.weight, layer.bias))


@pytest.mark.parametrize(("depth", "width"), [(1, 5), (3, 8)])
def test_it_has_as_many_hidden_layers_as_asked(depth, width):
    sizes = [tuple(p.shape) for name, p in MLP(3, 2, width=width, depth=depth).named_parameters() if "weight" in name]
    assert sizes == [(width, 3), *[(width, width)] * (depth - 1), (2, width)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": 0}, "inputs must be at least 1, got 0"),
        ({"depth": -1}, "depth must be at least 0, got -1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, got 1.0"),
    ],
)
def test_refuses_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"inputs": 3, "outputs": 1, **arguments})
