"""Updates counted on the device: for objectives that change with training, and for refused updates in a row."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.objectives import l2_penalty, term, weighted_sum


def scheduled(schedule):
    return weighted_sum({"error": term("squared_error"), "l2": l2_penalty("weight")}, {"l2": schedule})


def linear_state(objective, **options):
    torch.manual_seed(3)
    return ft.init_state(nn.Linear(3, 1), objective, ft.optim.sgd(0.1), precision="fp64", **options)


def batch(seed, size=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, generator=generator), torch.randn(size, 1, generator=generator)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_scheduled_weight_is_that_of_the_updates_done_and_constant_in_a_window(compiled, accumulate):
    step = ft.compile(ft.train_step, backend="aot_eager") if compiled else ft.train_step
    state, seen = linear_state(scheduled(lambda t: 0.25 * t), accumulate=accumulate), []
    for index in range(3 * accumulate):
        assert ft.eval_step(state, batch(9)).means()["l2_weight"].item() == 0.25 * (index // accumulate)
        state, metrics = step(state, batch(index))
        seen.append(metrics["l2_weight"].item())
    assert seen == [0.25 * (index // accumulate) for index in range(3 * accumulate)]
    assert state.counts.applied.item() == 3
    if compiled:
        assert sum(step.runner.compilations.values()) == (1 if accumulate == 1 else 2)  # no value is in the program


def test_a_window_under_a_scheduled_weight_is_its_concatenation(difference):
    objective = scheduled(lambda t: 0.5 + t)
    window, whole = linear_state(objective, accumulate=2), linear_state(objective)
    for first, second in ((0, 1), (2, 3), (4, 5)):
        parts = batch(first, 2), batch(second, 5)
        for part in parts:
            window, _ = ft.train_step(window, part)
        whole, _ = ft.train_step(whole, tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        assert difference(window.params, whole.params) < 1e-12


def test_a_refused_update_is_no_past_update_and_counts_as_a_skip():
    state = linear_state(scheduled(lambda t: 1.0 * t))
    bad = (torch.full((4, 3), float("nan")), torch.zeros(4, 1))
    counted = []
    for current in (batch(0), bad, bad, batch(1), bad):
        state, _ = ft.train_step(state, current)
        counted.append((state.counts.applied.item(), state.counts.skipped_in_a_row.item()))
    assert counted == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    weightless = (*batch(2), torch.zeros(4))
    assert ft.train_step(state, weightless)[0].counts.skipped_in_a_row.item() == 1


@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
def test_a_schedule_free_state_is_evaluated_and_exported_at_its_averages(name, difference):
    torch.manual_seed(0)
    optimizer = ft.optim.REGISTRY[name](0.1)
    state = ft.init_state(nn.Linear(3, 1), ft.regression(), optimizer, precision="fp64")
    for seed in range(5):
        state, _ = ft.train_step(state, batch(seed))
    averages = ft.optim.evaluation_params(state.opt_state, dict(state.params))
    module = ft.to_module(state)
    assert difference(dict(module.named_parameters()), averages) == 0
    assert difference(averages, state.params) > 1e-3
    x, y = (tensor.double() for tensor in batch(9))
    expected = nn.functional.mse_loss(module(x), y).item()
    assert ft.eval_step(state, (x, y)).means()["loss"].item() == pytest.approx(expected, rel=1e-12)
    from_averages = ft.evaluation.predict(state, [(x, y)], compile=False)
    assert torch.equal(from_averages, module(x).detach())
