"""The gradient noise scale is unbiased, and that of a model whose noise is known."""

import itertools
import math

import pytest
import torch
from torch import nn
from transform_helpers import make_batches, make_state

import functrain as ft
from functrain.step.gradient import gradient


def examples(count: int = 6) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(5)).double() + 0.5


def mean_state():
    """A model whose gradient for a target t is 2 (w - t), w = 0: known noise."""
    net = nn.Linear(1, 3, bias=False)
    nn.init.zeros_(net.weight)
    return make_state(net, ft.regression())


def as_batch(targets: torch.Tensor):
    return torch.ones(len(targets), 1).double(), targets


def test_estimates_are_unbiased() -> None:
    """Over all ways to draw 4 examples of a population with replacement, as batches of 1 and 3."""
    population, state = examples(4), mean_state()
    grads = -2 * population / 3  # regression takes the mean over 3 outputs
    true_norm = grads.mean(0).square().sum().item()
    true_trace = (grads - grads.mean(0)).square().sum(1).mean().item()
    norms, traces = [], []
    for rows in itertools.product(range(4), repeat=4):
        drawn = population[list(rows)]
        found = ft.transforms.gradient_noise_scale(state, [as_batch(drawn[:1]), as_batch(drawn[1:])])
        norms.append(found.gradient_norm_squared)
        traces.append(found.gradient_variance)
    assert sum(norms) / len(norms) == pytest.approx(true_norm, rel=1e-10)
    assert sum(traces) / len(traces) == pytest.approx(true_trace, rel=1e-10)


def test_it_is_that_of_the_formula_by_hand() -> None:
    state, batches = make_state("attention"), make_batches(4, 4, 4)
    each = [gradient(state, batch, {}) for batch in batches]
    means = [torch.cat([g.flatten() for g in found.grads.values()]) / 4 for found in each]
    small, big = torch.stack(means).square().sum(1).mean(), torch.stack(means).mean(0).square().sum()
    found = ft.transforms.gradient_noise_scale(state, batches)
    norm = (12 * big - 4 * small) / 8
    trace = (small - big) / (1 / 4 - 1 / 12)
    assert found.gradient_norm_squared == pytest.approx(norm.item(), rel=1e-10)
    assert found.gradient_variance == pytest.approx(trace.item(), rel=1e-10)
    assert found.batches == 3


def test_the_suggested_batch_is_the_noise_over_the_signal() -> None:
    torch.manual_seed(0)
    signal, noise, outputs = 0.5, 2.0, 3
    targets = signal + noise * torch.randn(4096, outputs).double()
    data = ft.data.Arrays(*as_batch(targets))
    found = ft.transforms.gradient_noise_scale(mean_state(), ft.data.Loader(data, 16))
    assert found.noise_scale == pytest.approx((noise / signal) ** 2, rel=0.25)
    assert found.batch_size == round(found.noise_scale)


def test_without_noise_it_is_0_and_without_a_gradient_infinite() -> None:
    same = as_batch(torch.ones(4, 3).double())
    found = ft.transforms.gradient_noise_scale(mean_state(), [same, same])
    assert found.noise_scale == pytest.approx(0.0, abs=1e-12)
    assert found.batch_size == 1
    up, down = as_batch(torch.ones(4, 3).double()), as_batch(-torch.ones(4, 3).double())
    found = ft.transforms.gradient_noise_scale(mean_state(), [up, down])
    assert (found.noise_scale, found.batch_size) == (math.inf, None)


def test_batches_may_be_limited_and_one_is_refused() -> None:
    state, batches = make_state(), make_batches(4, 4, 4)
    assert ft.transforms.gradient_noise_scale(state, batches, max_batches=2).batches == 2
    with pytest.raises(ft.errors.DataError, match=r"two batches or more that count; the loader gave 1"):
        ft.transforms.gradient_noise_scale(state, batches[:1])
    with pytest.raises(ValueError, match="max_batches must be"):
        ft.transforms.gradient_noise_scale(state, batches, max_batches=1)
