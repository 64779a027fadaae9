"""eval_step: evaluation mode, averaged parameters, exact sums, and no trace of itself."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft


def trained(everything_state, image_batch, steps=3, **settings):
    state = everything_state(**settings)
    for seed in range(steps):
        state, _ = ft.train_step(state, image_batch(seed))
    return state


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2, "ema_decay": 0.5}, {"precision": "fp16"}])
def test_evaluation_changes_neither_state_nor_batch_nor_generators(settings, everything_state, image_batch, bits):
    state, batch = trained(everything_state, image_batch, **settings), image_batch(9)
    before = bits(state), bits(batch), torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[2]
    first, second = ft.eval_step(state, batch), ft.eval_step(state, batch)
    assert bits(first) == bits(second)
    after = bits(state), bits(batch), torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[2]
    assert after == before
    assert not first.sums.requires_grad


def test_a_model_that_samples_in_evaluation_mode_repeats_and_leaves_the_generator_alone(image_batch, bits):
    class Sampler(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(25, 4)

        def forward(self, x):
            return self.head(F.dropout(x.flatten(1), 0.5, training=True))

    state = ft.init_state(Sampler(), ft.classification(), ft.optim.sgd(0.1))
    before = torch.get_rng_state()
    first = ft.eval_step(state, image_batch())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert bits(ft.eval_step(state, image_batch())) == bits(first)


@pytest.mark.parametrize("ema", [False, True])
def test_evaluation_is_that_of_the_module_in_evaluation_mode(ema, everything_state, image_batch):
    state, (x, y) = trained(everything_state, image_batch, ema_decay=0.5), image_batch(9)
    module = ft.to_module(state, ema=ema).eval()  # dropout off, running statistics
    with torch.no_grad():
        logits = module(x)
    means = ft.eval_step(state, (x, y), ema=ema).means()
    torch.testing.assert_close(means["loss"].float(), F.cross_entropy(logits, y), rtol=1e-6, atol=0)
    assert means["accuracy"].item() == pytest.approx((logits.argmax(1) == y).double().mean().item())


def test_the_averaged_parameters_follow_their_recurrence(everything_state, image_batch):
    state = everything_state(ema_decay=0.75, precision="fp64")
    assert set(state.ema.params) == set(state.params) - {"scale"}
    expected = {name: state.params[name] for name in state.ema.params}
    for seed in range(4):
        state, _ = ft.train_step(state, image_batch(seed))
        expected = {name: 0.75 * mean + 0.25 * state.params[name] for name, mean in expected.items()}
    for name, mean in expected.items():
        torch.testing.assert_close(state.ema.params[name], mean, rtol=1e-13, atol=1e-15)
        assert not torch.equal(state.ema.params[name], state.params[name])


def test_the_average_moves_once_per_window(everything_state, image_batch, bits):
    state = everything_state(ema_decay=0.75, accumulate=2)
    inside, _ = ft.train_step(state, image_batch())
    assert bits(inside.ema) == bits(state.ema)
    assert bits(ft.train_step(inside, image_batch())[0].ema) != bits(state.ema)


def test_evaluating_an_average_that_is_not_kept_is_refused(everything_state, image_batch):
    with pytest.raises(ValueError, match="keeps no moving average; give init_state an ema_decay"):
        ft.eval_step(everything_state(), image_batch(), ema=True)


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1, 10, 1), (1,) * 12])
def test_totals_of_uneven_batches_add_up_to_those_of_the_whole_set(sizes, everything_state, image_batch):
    state = trained(everything_state, image_batch, precision="fp64")
    x, y = image_batch(9, 12)
    whole = ft.eval_step(state, (x, y))
    added = None
    for part in zip(x.split(sizes), y.split(sizes)):
        totals = ft.eval_step(state, part)
        added = totals if added is None else added + totals
    assert added.weight.item() == 12
    torch.testing.assert_close(added.sums, whole.sums, rtol=1e-13, atol=1e-13)
    assert torch.equal(added.sums[:, 1], whole.sums[:, 1])  # counts are exact


def test_padding_of_weight_zero_changes_no_evaluation(everything_state, image_batch):
    state = trained(everything_state, image_batch, precision="fp64")
    x, y = image_batch(9, 5)
    rows, weight = torch.arange(8) % 5, (torch.arange(8) < 5).double()
    padded = ft.eval_step(state, (x[rows], y[rows], weight))
    torch.testing.assert_close(padded.sums, ft.eval_step(state, (x, y)).sums, rtol=1e-13, atol=1e-13)


def test_half_precision_evaluates_in_half_precision(everything_state, image_batch):
    full, half = (trained(everything_state, image_batch, 0, precision=p) for p in ("fp32", "bf16"))
    losses = [ft.eval_step(state, image_batch()).means()["loss"].item() for state in (full, half)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2**-6)
