"""Unscale, then clip by value, then by norm, then apply; the metric is the norm before any of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.step.scaling import LossScale


def model():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.mark.parametrize("clip_norm", [None, 1e-3, 0.1, 1e3])
@pytest.mark.parametrize("clip_value", [None, 1e-3, 0.1])
def test_clipping_is_torchs_on_the_mean_loss_by_value_first(clip_norm, clip_value, difference):
    state = ft.init_state(
        model(), ft.classification(), ft.optim.sgd(1.0), precision="fp64", clip_norm=clip_norm, clip_value=clip_value
    )
    reference = ft.to_module(state)
    x, y = torch.randn(7, 4, dtype=torch.float64), torch.randint(3, (7,))
    new, metrics = ft.train_step(state, (x, y))
    F.cross_entropy(reference(x), y).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in reference.parameters()])
    torch.testing.assert_close(metrics["grad_norm"], norm, rtol=1e-12, atol=0)
    if clip_value is not None:
        torch.nn.utils.clip_grad_value_(reference.parameters(), clip_value)
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(reference.parameters(), clip_norm)
    torch.optim.SGD(reference.parameters(), 1.0).step()
    assert difference(new.params, dict(reference.named_parameters())) < 1e-12


@pytest.mark.parametrize("clipping", [{"clip_norm": 0.01}, {"clip_value": 0.001}])
def test_gradients_are_unscaled_before_they_are_clipped(clipping, bits):
    """Clipped first, the update would depend on the loss scale."""
    batch = torch.randn(8, 4), torch.randint(3, (8,))
    state = ft.init_state(model(), ft.classification(), ft.optim.sgd(1.0), precision="fp16", **clipping)
    new = []
    for exponent in (8, 12):
        scale = LossScale(torch.tensor(2.0**exponent), torch.tensor(0, dtype=torch.int32))
        new.append(ft.train_step(state.replace(loss_scale=scale), batch)[0].params)
    assert bits(new[0]) == bits(new[1])
    step_length = torch.linalg.vector_norm(
        torch.cat([(new[0][name] - state.params[name]).flatten() for name in new[0]])
    ).item()
    if "clip_norm" in clipping:
        assert step_length == pytest.approx(0.01, rel=1e-3)


def test_a_gradient_within_the_bound_is_not_touched(bits):
    batch = torch.randn(8, 4), torch.randint(3, (8,))
    free, bound = (
        ft.train_step(ft.init_state(model(), ft.classification(), ft.optim.sgd(1.0), **clipping), batch)[0].params
        for clipping in ({}, {"clip_norm": 1e6, "clip_value": 1e6})
    )
    assert bits(free) == bits(bound)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_large_finite_gradient_is_clipped_and_not_refused(compiled):
    """d/dw of 1e25 * sum(w) is 1e25 everywhere, so clipped to norm 1 each of 4 elements moves by lr / 2."""
    model = torch.nn.Linear(4, 1, bias=False)
    objective = lambda model, batch: ft.Loss(1e25 * model(batch).sum(), 1, {})  # noqa: E731
    state = ft.init_state(model, objective, ft.optim.sgd(0.5), clip_norm=1.0)
    step = ft.compile(ft.train_step, backend="eager") if compiled else ft.train_step
    after, metrics = step(state, torch.ones(1, 4))
    assert metrics["skipped"].item() == 0
    assert metrics["grad_norm"].item() == pytest.approx(2e25, rel=1e-6)
    torch.testing.assert_close(state.params["weight"] - after.params["weight"], torch.full((1, 4), 0.25))
