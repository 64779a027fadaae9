"""Differentiating through training: the gradients are finite differences of whole runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transform_helpers import flat, make_batches, make_state, trainable, unflat

import functrain as ft

H = 1e-4  # of five-point differences in float64, whose error is about H^4 times a fifth derivative, and 1e-16 / H
TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}
OPTIMIZERS = {
    "sgd": lambda: ft.optim.sgd(0.3, momentum=0.9, nesterov=True),
    # With a small eps, of a gradient near 0 (the bias before a BatchNorm), the differences would show rounding alone.
    "adamw": lambda: ft.optim.adamw(0.03, weight_decay=0.1, eps=0.1),
    "schedule": lambda: ft.optim.sgd(ft.schedules.cosine(0.5, 4)),
}
NETWORKS = {"mlp": "mlp", "batch norm": "batch norm", "attention": "attention"}


def trained_loss(state: Any, batches: list[Any], eval_batch: Any, buffers: Any = None) -> float:
    for batch in batches:
        state, _ = ft.train_step(state, batch)
    state = state if buffers is None else state.replace(buffers=buffers)
    return ft.eval_step(state, eval_batch).means()["loss"].item()


def slope(fn: Callable[[float], float]) -> float:
    """The derivative at 0."""
    return (8 * (fn(H) - fn(-H)) - (fn(2 * H) - fn(-2 * H))) / (12 * H)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_the_gradient_by_initial_parameters_is_that_of_whole_runs(network: str, optimizer: str) -> None:
    state, (*batches, last) = make_state(network, optimizer=OPTIMIZERS[optimizer]()), make_batches(4, 6, 5, 8)
    found = ft.transforms.unroll(state, batches, last)
    start, direction = flat(trainable(state)), torch.randn(len(flat(trainable(state)))).double()

    def loss(shift: float) -> float:
        moved = unflat(start + shift * direction, state)
        # To torch, the running statistics that BatchNorm keeps are constants.
        return trained_loss(state.replace(params={**state.params, **moved}), batches, last, found.state.buffers)

    expected = torch.tensor(slope(loss), dtype=torch.float64)
    torch.testing.assert_close(flat(found.gradient) @ direction, expected, **TOLERANCE)
    torch.testing.assert_close(found.loss, torch.tensor(loss(0.0), dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_gradient_by_each_learning_rate_is_that_of_whole_runs(optimizer: str, accumulate: int) -> None:
    rates = [0.1, 0.3, 0.2]

    def scheduled(values: list[float]) -> Any:
        table = torch.tensor(values, dtype=torch.float64)
        make = ft.optim.sgd if optimizer == "sgd" else ft.optim.adamw
        return make(lambda step: table[step])

    batches = make_batches(*range(3, 3 + 3 * accumulate))
    last = make_batches(9, seed=1)[0]

    def loss(values: list[float]) -> float:
        state = make_state(optimizer=scheduled(values), accumulate=accumulate)
        return trained_loss(state, batches, last)

    state = make_state(optimizer=scheduled(rates), accumulate=accumulate)
    found = ft.transforms.unroll(state, batches, last, of="lr")
    assert found.lr is not None
    assert found.lr.tolist() == rates
    for number in range(3):
        expected = slope(lambda h, n=number: loss([rate + h * (i == n) for i, rate in enumerate(rates)]))
        torch.testing.assert_close(found.gradient[number], torch.tensor(expected, dtype=torch.float64), **TOLERANCE)


def test_adam_has_a_gradient_where_dropout_leaves_none() -> None:
    state, (*batches, last) = make_state(optimizer=ft.optim.adam(0.03)), make_batches(1, 6)
    found = ft.transforms.unroll(state, batches, last)
    after, _ = ft.train_step(state, batches[0])
    assert (after.params["3.weight"] == state.params["3.weight"]).any(), "no element is without a gradient"
    assert flat(found.gradient).isfinite().all()


def test_the_state_after_it_is_that_of_the_steps() -> None:
    state, (*batches, last) = make_state("batch norm"), make_batches(4, 6, 5)
    found = ft.transforms.unroll(state, batches, last, of="lr").state
    for batch in batches:
        state, _ = ft.train_step(state, batch)
    assert (found.step, found.samples_seen) == (state.step, state.samples_seen) == (2, 10)
    for name, param in {**state.params, **state.buffers}.items():
        torch.testing.assert_close({**found.params, **found.buffers}[name], param, rtol=1e-12, atol=1e-14)
    assert not any(leaf.requires_grad for leaf in found.params.values())


def test_several_learning_rates_have_a_column_each() -> None:
    heads = ft.optim.partition({"3.*": ft.optim.sgd(0.1), "*": ft.optim.sgd(0.2)})
    state, (*batches, last) = make_state(optimizer=heads), make_batches(4, 6, 5)
    found = ft.transforms.unroll(state, batches, last, of="lr")
    assert found.lr is not None
    assert found.gradient.shape == found.lr.shape == (2, 2)
    assert sorted(found.lr[0].tolist()) == [0.1, 0.2]


def test_meta_gradients_find_a_start_that_learns_faster() -> None:
    """Descent on them lowers the loss after one update on a task; MAML in its smallest form."""

    def task(slope: float) -> tuple[Tensor, Tensor]:
        inputs = torch.linspace(-1, 1, 8).double().unsqueeze(1)
        return inputs, slope * inputs

    state = make_state(nn.Linear(1, 1), ft.regression(), ft.optim.sgd(0.3))
    batches = [task(slope) for slope in (2.0, 3.0, 4.0)]

    def after(state: Any) -> float:
        return sum(ft.transforms.unroll(state, [batch], batch).loss.item() for batch in batches)

    before = after(state)
    for _ in range(60):
        grads = [ft.transforms.unroll(state, [batch], batch).gradient for batch in batches]
        params = {name: p - 0.3 * sum(grad[name] for grad in grads) for name, p in state.params.items()}
        state = state.replace(params=params)
    assert after(state) < before / 10
    torch.testing.assert_close(state.params["weight"].item(), 3.0, rtol=1e-3, atol=0)


def test_wrong_arguments_are_refused() -> None:
    state, batches = make_state(accumulate=2), make_batches(4, 6, 5)
    with pytest.raises(ValueError, match="one or more windows of 2"):
        ft.transforms.unroll(state, batches, batches[0])
    with pytest.raises(ValueError, match="of must be 'params' or 'lr'"):
        ft.transforms.unroll(state, batches[:2], batches[0], of="momentum")
    with pytest.raises(ValueError, match="within an accumulation window"):
        ft.transforms.unroll(ft.train_step(state, batches[0])[0], batches[:2], batches[0])
    with pytest.raises(ValueError, match="no learning rate"):
        ft.transforms.unroll(make_state(optimizer=ft.optim.scale(-0.1)), batches, batches[0], of="lr")
