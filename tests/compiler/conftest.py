"""What the tests of the compiler share. Compilation is slow, so states and compiled steps last for a module."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.foundation import trees


class Perceptron(nn.Module):
    """Linear, BatchNorm, in-place ReLU and, if asked for, dropout; deterministic without."""

    def __init__(self, dropout):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()
        self.second = nn.Linear(6, 3)

    def forward(self, x):
        return self.second(self.drop(self.relu(self.norm(self.first(x)))))


@pytest.fixture(scope="session")
def perceptron_state():
    """Makes a state, arguments as of `init_state`; a state's recipe is its identity for the compiler."""

    def make(dropout=0.0, **options):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = Perceptron(dropout)
        options = {"precision": "fp64", **options}
        objective = options.pop("objective", ft.classification())
        optimizer = options.pop("optimizer", ft.optim.sgd(ft.schedules.cosine(0.5, 50), momentum=0.9))
        return ft.init_state(model, objective, optimizer, **options)

    return make


@pytest.fixture(scope="session")
def vectors():
    """Makes a batch: `vectors(seed, size)`."""

    def make(seed=0, size=6):
        generator = torch.Generator().manual_seed(seed)
        return (
            torch.randn(size, 4, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )

    return make


@pytest.fixture(scope="session")
def assert_close():
    """Two states or results agree: host values exactly, tensors to `tolerance`."""

    def check(left, right, tolerance=1e-12):
        for (path, a), (_, b) in zip(trees.leaves_with_paths(left), trees.leaves_with_paths(right), strict=True):
            if isinstance(a, torch.Tensor):
                torch.testing.assert_close(
                    a, b, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m, p=path: f"{p}: {m}"
                )
            else:
                assert a == b, path

    return check
