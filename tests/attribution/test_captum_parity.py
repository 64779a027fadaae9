"""Captum's values, where it has the method and draws nothing."""

import pytest
import torch
from captum import attr
from torch import nn

from functrain import attribution


class Smooth(nn.Module):
    """A network whose gradient has no jumps, so that captum's fixed rule converges."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 3))

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Smooth().double()


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def scores(model, target):
    return lambda x: model(x)[:, target]


@pytest.mark.parametrize("target", [0, 2])
def test_integrated_gradients(model, inputs, target):
    baseline = torch.full_like(inputs, 0.25)
    expected = attr.IntegratedGradients(model).attribute(inputs, baseline, target=target, n_steps=100)
    found = attribution.integrated_gradients(scores(model, target), inputs, baseline)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-6)


def test_saliency(model, inputs):
    expected = attr.Saliency(model).attribute(inputs.clone().requires_grad_(), target=1)
    found = attribution.saliency(scores(model, 1), inputs)
    torch.testing.assert_close(found.values, expected.detach(), rtol=0, atol=1e-12)


def test_input_x_gradient(model, inputs):
    expected = attr.InputXGradient(model).attribute(inputs.clone().requires_grad_(), target=1)
    found = attribution.input_x_gradient(scores(model, 1), inputs)
    torch.testing.assert_close(found.values, expected.detach(), rtol=0, atol=1e-12)
