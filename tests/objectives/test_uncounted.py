"""Whatever an example of weight 0 holds, NaN and infinities too, reaches neither the loss nor a gradient."""

import pytest
import torch
from loss_helpers import arguments, every_loss, seeded, sums
from torch import nn

import functrain as ft
from functrain.metrics.weighted_sums import PerExample
from functrain.objectives import supervised
from functrain.objectives.losses import BINARY, CLASSES, REGISTRY, VALUES
from functrain.objectives.terms import term

SPOILT = [float("nan"), float("inf"), float("-inf")]
WEIGHT = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
every_value = pytest.mark.parametrize("bad", SPOILT)


def graded(objective, predictions, *rest, model=lambda predictions: predictions):
    """Sums, and the gradient of their quotient with respect to the predictions."""
    predictions = predictions.clone().requires_grad_()
    loss = objective(model, (predictions, *rest))
    (gradient,) = torch.autograd.grad(loss.total / loss.weight, predictions)
    return loss.totals().sums, gradient


def spoilt(name, bad, *, predictions, targets):
    """Arguments of a loss, the same with an example of weight 0 spoilt, where numbers are to be spoilt."""
    good = arguments(name, 4, seeded(0))
    spoil = [tensor.clone() for tensor in good]
    for tensor, wanted in zip(spoil, (predictions, targets)):
        if wanted and tensor.dtype.is_floating_point:
            tensor[1] = bad
    if targets and name in BINARY:
        spoil[1] = spoil[1].double()
        spoil[1][1] = bad
    return good, spoil


@every_loss
@every_value
@pytest.mark.parametrize("where", ["predictions", "targets", "both"])
def test_what_is_not_finite_at_weight_0_changes_no_bit_of_a_loss_or_its_gradient(name, bad, where):
    good, spoil = spoilt(name, bad, predictions=where != "targets", targets=where != "predictions")
    for left, right in zip(graded(supervised(name), *good, WEIGHT), graded(supervised(name), *spoil, WEIGHT)):
        assert torch.equal(left, right)
        assert left.isfinite().all()


@every_loss
@every_value
@pytest.mark.parametrize("per_example", [False, True])
def test_it_changes_no_bit_of_a_term_that_some_examples_lack(name, bad, per_example):
    good, spoil = spoilt(name, bad, predictions=True, targets=True)
    objective = ft.objectives.weighted_sum(
        {"term": term(name, output="y", target="t", weight="has", per_example=per_example)}
    )
    left, right = (
        graded(objective, y, {"t": t, "has": WEIGHT}, model=lambda predictions: {"y": predictions})
        for y, t in (good, spoil)
    )
    for one, other in zip(left, right):
        assert torch.equal(one, other)
        assert one.isfinite().all()


@pytest.mark.parametrize("name", [*CLASSES, *BINARY])
@every_value
def test_what_is_predicted_where_a_label_is_ignored_changes_no_bit_of_the_gradient(name, bad):
    predictions, targets = arguments(name, 3, seeded(4))
    over = (targets == -100).unsqueeze(1) if name in CLASSES else targets == -100
    left = sums(name, predictions, targets)
    right = sums(name, torch.where(over, bad, predictions), targets)
    assert all(torch.equal(one, other) for one, other in zip(left, right))
    assert left[2].isfinite().all()


@pytest.mark.parametrize("name", VALUES)
@every_value
def test_a_difference_that_is_not_finite_shows_in_its_value_alone(name, bad):
    def total(predictions, targets, weight):
        values = REGISTRY[name](predictions, targets).values
        return PerExample(values, weight).sums()[0]  # the weight comes after the loss

    good, spoil = spoilt(name, bad, predictions=False, targets=True)
    assert not REGISTRY[name](*spoil).values[1].isfinite()
    left, right = (torch.func.grad_and_value(total)(*tensors, WEIGHT) for tensors in (good, spoil))
    assert torch.equal(left[1], right[1])
    assert torch.equal(left[0][WEIGHT != 0], right[0][WEIGHT != 0])
    assert not right[0][1].any()


@every_value
@pytest.mark.parametrize("loss", [nn.functional.mse_loss, lambda y, t: nn.functional.mse_loss(y, t)])
def test_a_mean_loss_taken_apart_sees_none_of_it(bad, loss):
    good, spoil = spoilt("squared_error", bad, predictions=True, targets=True)
    for left, right in zip(graded(supervised(loss), *good, WEIGHT), graded(supervised(loss), *spoil, WEIGHT)):
        torch.testing.assert_close(left, right, rtol=1e-14, atol=0)
        assert left.isfinite().all()


@every_value
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_a_network_sees_none_of_it(bad, compiled, own):
    class Own:
        takes_weight = True

        def __call__(self, model, batch):
            inputs, targets, weight = batch
            return ft.Loss(((model(inputs) - targets).square().mean(1) * weight).sum(), weight.sum())

    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    state = ft.init_state(model, Own() if own else ft.regression(), ft.optim.adam(0.1))
    step = ft.compile(ft.train_step, backend="aot_eager") if compiled else ft.train_step
    inputs, targets = torch.randn(4, 3, generator=seeded(0)), torch.randn(4, 2, generator=seeded(1))
    inputs[1] = 0.0
    spoilt_inputs, spoilt_targets = inputs.clone(), targets.clone()
    spoilt_inputs[1], spoilt_targets[1] = bad, bad
    weight = WEIGHT.float()
    expected, metrics = step(state, (inputs, targets, weight))
    found, found_metrics = step(state, (spoilt_inputs, spoilt_targets, weight))
    assert not ft.diff_states(expected, found)
    assert metrics == found_metrics
    assert metrics["loss"].isfinite()
    evaluated = [
        ft.eval_step(state, (*parts, weight)).sums for parts in ((inputs, targets), (spoilt_inputs, spoilt_targets))
    ]
    assert torch.equal(*evaluated)
    assert ft.train_step(state, (spoilt_inputs, targets, torch.ones(4)))[1]["skipped"] == 1
