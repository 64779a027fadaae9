"""An update that is not finite is refused: nothing moves but the loss scale and the counters."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.foundation import trees
from functrain.step.scaling import LossScale

KEPT = ("params", "opt_state", "ema", "buffers", "epoch_totals", "key")


def nan_image(batch):
    x = batch[0].clone()
    x[0] = float("nan")
    return (x, batch[1])


def infinite_image(batch):
    x = batch[0].clone()
    x[0, 0, 0, 0] = float("inf")
    return (x, batch[1])


def label_out_of_range(batch):
    return (batch[0], torch.full_like(batch[1], 4))


def weightless(batch):
    return (*batch, torch.zeros(len(batch[1])))


def trained(everything_state, image_batch, **settings):
    """A state between two windows whose every part has moved."""
    state = everything_state(ema_decay=0.9, **settings)
    for seed in range(2 * settings.get("accumulate", 1)):
        state, metrics = ft.train_step(state, image_batch(seed))
    assert metrics["skipped"].item() == 0
    return state


def assert_refused(state, new, metrics, bits, micro_batches):
    for field in KEPT:
        assert bits(getattr(new, field)) == bits(getattr(state, field)), field
    assert metrics["skipped"].item() == 1
    assert new.step == state.step + 1
    assert new.batch_idx == state.batch_idx + micro_batches
    if new.accumulator is not None:
        window = new.accumulator
        assert window.count == 0
        assert all(leaf.eq(0).all() for leaf in trees.tensors((window.grads, window.sums)))
        assert bits(window.buffers) == bits(state.buffers)


@pytest.mark.parametrize("spoil", [nan_image, infinite_image, label_out_of_range, weightless])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_window_with_a_bad_batch_changes_nothing(spoil, accumulate, everything_state, image_batch, bits):
    state = trained(everything_state, image_batch, accumulate=accumulate)
    new = state
    for micro_batch in range(accumulate):
        batch = image_batch(10 + micro_batch)
        # The first micro-batch is bad; of weightless ones all are, for one among others is no reason to refuse.
        new, metrics = ft.train_step(new, spoil(batch) if micro_batch == 0 or spoil is weightless else batch)
    assert_refused(state, new, metrics, bits, accumulate)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_overflow_of_fp16_changes_nothing_but_the_scale(accumulate, everything_state, image_batch, bits):
    state = trained(everything_state, image_batch, accumulate=accumulate, precision="fp16")
    huge = LossScale(torch.tensor(2.0**100), torch.tensor(7, dtype=torch.int32))
    state = new = state.replace(loss_scale=huge)
    for micro_batch in range(accumulate):
        new, metrics = ft.train_step(new, image_batch(10 + micro_batch))
    assert_refused(state, new, metrics, bits, accumulate)
    assert new.loss_scale.scale.item() == 2.0**99
    assert new.loss_scale.good_steps.item() == 0
    assert metrics["loss"].isfinite()  # it was the gradient that overflowed


@pytest.mark.parametrize("accumulate", [1, 3])
def test_training_goes_on_after_a_refused_update_as_if_it_had_not_been(
    accumulate, everything_state, image_batch, difference
):
    optimizer = ft.optim.sgd(0.1, momentum=0.9)
    state = trained(everything_state, image_batch, accumulate=accumulate, optimizer=optimizer)
    state = state.replace(recipe=state.recipe)
    refused = state
    for _ in range(accumulate):
        refused, _ = ft.train_step(refused, nan_image(image_batch()))
    refused = refused.replace(step=state.step)  # the same dropout
    for seed in range(accumulate):
        refused, _ = ft.train_step(refused, image_batch(seed))
        state, _ = ft.train_step(state, image_batch(seed))
    assert difference(refused.params, state.params) == 0
    assert difference(refused.buffers, state.buffers) == 0


def test_a_gradient_that_is_not_finite_is_refused_though_the_loss_is():
    def objective(model, batch):
        return ft.Loss(model(batch).sqrt().sum(), len(batch))

    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    state = ft.init_state(model, objective, ft.optim.sgd(0.1))
    new, metrics = ft.train_step(state, torch.zeros(2, 1))
    assert metrics["loss"].item() == 0.0
    assert not metrics["grad_norm"].isfinite()
    assert metrics["skipped"].item() == 1
    assert new.params["bias"].item() == 0.0


def test_a_weightless_batch_reports_no_mean_and_counts_as_no_overflow(everything_state, image_batch):
    state = everything_state(precision="fp16")
    new, metrics = ft.train_step(state, weightless(image_batch()))
    assert metrics["loss"].isnan()
    assert new.loss_scale.scale.item() == state.loss_scale.scale.item()


def test_a_bad_label_is_refused_and_the_objective_can_say_what_is_wrong(everything_state, image_batch):
    state = everything_state()
    batch = label_out_of_range(image_batch())
    _, metrics = ft.train_step(state, batch)
    assert metrics["loss"].isnan()
    assert metrics["skipped"].item() == 1
    assert "label 4 at position [0]" in state.recipe.objective.complaint(ft.to_module(state), batch)
