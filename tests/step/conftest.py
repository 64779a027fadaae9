"""What the tests of the step share: a network with everything in it, its batches, and a measure of differences."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.foundation import trees


class Everything(nn.Module):
    """Convolution, BatchNorm, dropout, an integer buffer that forward re-assigns, and a frozen parameter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(3, 4)
        self.scale = nn.Parameter(torch.full((4,), 1.5), requires_grad=False)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls = self.calls + 1
        x = self.drop(torch.relu(self.norm(self.conv(x)))).mean((2, 3))
        return self.head(x) * self.scale


@pytest.fixture(scope="session")
def everything():
    """Makes the network, always with the same initial parameters."""

    def make():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return Everything()

    return make


@pytest.fixture(scope="session")
def image_batch():
    """Makes a batch of images for it: `image_batch(seed, size)`."""

    def make(seed=0, size=6):
        generator = torch.Generator().manual_seed(seed)
        return (
            torch.randn(size, 1, 5, 5, generator=generator),
            torch.randint(4, (size,), generator=generator),
        )

    return make


@pytest.fixture(scope="session")
def everything_state(everything):
    """Makes a state of it with an optimizer that has a state of its own; arguments as of `init_state`."""

    def make(**options):
        objective = options.pop("objective", ft.classification())
        optimizer = options.pop("optimizer", ft.optim.adamw(ft.schedules.cosine(0.01, 100)))
        return ft.init_state(everything(), objective, optimizer, **options)

    return make


@pytest.fixture(scope="session")
def difference():
    """The largest difference between two trees of tensors, relative to each leaf's largest element."""

    def largest(left, right):
        found = 0.0
        for a, b in zip(trees.tensors(left), trees.tensors(right), strict=True):
            assert a.shape == b.shape
            if a.numel():
                scale = max(b.double().abs().max().item(), 1e-300)
                found = max(found, (a.double() - b.double()).abs().max().item() / scale)
        return found

    return largest
