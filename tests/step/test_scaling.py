"""The loss scale as state, and what half precision touches."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.foundation import trees
from functrain.step import scaling
from functrain.step.scaling import LossScale, next_loss_scale, weight_normaliser


def loss_scale(scale, good_steps=0):
    return LossScale(torch.tensor(float(scale)), torch.tensor(good_steps, dtype=torch.int32))


def perceptron_state(precision, **options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    return ft.init_state(model, ft.classification(), ft.optim.sgd(0.5), precision=precision, **options)


def batch(size=8):
    return torch.randn(size, 4), torch.randint(3, (size,))


def test_the_scale_grows_after_an_interval_of_good_steps_and_never_before():
    state = loss_scale(2.0**16)
    for _ in range(scaling.GROWTH_INTERVAL - 1):
        state = next_loss_scale(state, torch.tensor(True))
    assert (state.scale.item(), state.good_steps.item()) == (2.0**16, scaling.GROWTH_INTERVAL - 1)
    state = next_loss_scale(state, torch.tensor(True))
    assert (state.scale.item(), state.good_steps.item()) == (2.0**17, 0)


def test_an_overflow_halves_the_scale_and_starts_the_count_again():
    state = next_loss_scale(loss_scale(2.0**16, 1500), torch.tensor(False))
    assert (state.scale.item(), state.good_steps.item()) == (2.0**15, 0)


def test_a_rule_of_ones_own_grows_and_backs_off_as_torchs_gradscaler_does():
    rule = ft.LossScaling(init_scale=8.0, growth_factor=4.0, backoff_factor=0.25, growth_interval=3)
    assert perceptron_state("fp32", loss_scale=rule).loss_scale.scale.item() == 8.0
    theirs = torch.amp.GradScaler("cpu", 8.0, 4.0, 0.25, 3)
    leaf = torch.nn.Parameter(torch.ones(1))
    optimizer, state = torch.optim.SGD([leaf], 0.1), loss_scale(8.0)
    for finite in (True, True, True, True, False, True, True, False, True, True, True):
        leaf.grad = theirs.scale(torch.ones(1)) * (1.0 if finite else float("inf"))
        theirs.step(optimizer)
        theirs.update()
        state = next_loss_scale(state, torch.tensor(finite), rule)
        assert state.scale.item() == theirs.get_scale()


def test_an_overflow_in_a_run_backs_off_by_the_states_rule():
    state = perceptron_state("fp16", loss_scale=ft.LossScaling(init_scale=2.0**100, backoff_factor=0.25))
    new, metrics = ft.train_step(state, batch())
    assert (metrics["skipped"].item(), new.loss_scale.scale.item()) == (1.0, 2.0**98)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"init_scale": 0.0}, r"init_scale must be a number in \(0, 2\^120\], got 0.0"),
        ({"growth_factor": 1.0}, "growth_factor must be a finite number > 1, got 1.0"),
        ({"backoff_factor": 1.0}, r"backoff_factor must be in \(0, 1\), got 1.0"),
        ({"growth_interval": 0}, "growth_interval must be a whole number >= 1, got 0"),
        ({"growth_interval": 2.5}, "growth_interval must be a whole number >= 1, got 2.5"),
        ({"growth_interval": True}, "growth_interval must be a whole number >= 1, got True"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ft.LossScaling(**wrong)
    with pytest.raises(TypeError, match="init_scale must be a number, got '2'"):
        ft.LossScaling(init_scale="2")


def test_the_scale_stays_finite_and_never_reaches_zero():
    state = loss_scale(2.0**16)
    for _ in range(300):
        state = next_loss_scale(state, torch.tensor(False))
    assert state.scale.item() == scaling.SMALLEST_SCALE > 0
    state = loss_scale(scaling.LARGEST_SCALE, scaling.GROWTH_INTERVAL - 1)
    assert next_loss_scale(state, torch.tensor(True)).scale.item() == scaling.LARGEST_SCALE


@pytest.mark.parametrize("weight", [0.0, 1e-3, 1.0, 1.5, 2.0, 7.0, 8.0, 1000.0, 2.0**20 + 1])
def test_the_normaliser_is_a_power_of_two_next_to_the_weight(weight):
    normaliser = weight_normaliser(torch.tensor(weight, dtype=torch.float64))
    assert torch.frexp(normaliser).mantissa.item() == 0.5
    assert normaliser.dtype == torch.float32
    assert max(weight, 1.0) < normaliser.item() <= 2 * max(weight, 1.0)


def test_a_training_run_grows_its_scale_and_backs_off():
    state = perceptron_state("fp16")
    state = state.replace(loss_scale=loss_scale(2.0**10, scaling.GROWTH_INTERVAL - 2))
    scales = []
    for _ in range(3):
        state, metrics = ft.train_step(state, batch())
        scales.append((metrics["loss_scale"].item(), state.loss_scale.scale.item()))
    assert scales == [(2.0**10, 2.0**10), (2.0**10, 2.0**11), (2.0**11, 2.0**11)]
    assert metrics["skipped"].item() == 0
    state, metrics = ft.train_step(state.replace(loss_scale=loss_scale(2.0**100)), batch())
    assert metrics["skipped"].item() == 1
    assert state.loss_scale.scale.item() == 2.0**99


def test_a_run_recovers_from_a_scale_that_is_far_too_large():
    state = perceptron_state("fp16").replace(loss_scale=loss_scale(2.0**30))
    examples, skipped = batch(), []
    for _ in range(30):
        state, metrics = ft.train_step(state, examples)
        skipped.append(metrics["skipped"].item())
    assert skipped[0] == 1
    assert sum(skipped[-5:]) == 0
    assert state.loss_scale.scale.item() == 2.0 ** (30 - sum(skipped))
    assert all(leaf.isfinite().all() for leaf in trees.tensors(state.params))


def test_the_scale_changes_no_bit_of_an_update_that_neither_overflows_nor_underflows(bits):
    """A power of two moves exponents only."""
    state, examples = perceptron_state("fp16", clip_norm=0.1), batch()
    updates = [ft.train_step(state.replace(loss_scale=loss_scale(2.0**exponent)), examples) for exponent in (8, 9, 12)]
    assert all(metrics["skipped"].item() == 0 for _, metrics in updates)
    assert len({str(bits(new.params)) for new, _ in updates}) == 1
    assert len({metrics["grad_norm"].item() for _, metrics in updates}) == 1


def test_fp16_trains_as_torchs_gradscaler_does(difference):
    state = perceptron_state("fp16")
    model = ft.to_module(state)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(5):
        x, y = batch()  # eight examples, a power of two: mean and sum differ by an exponent only
        with torch.autocast("cpu", torch.float16):
            loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        state, metrics = ft.train_step(state, (x, y))
        assert metrics["loss_scale"].item() == scaler.get_scale()
    # Half precision rounds at 2**-11; the same roundings happen on both sides, but sums may be ordered otherwise.
    assert difference(state.params, dict(model.named_parameters())) < 2**-11


def test_a_large_batch_does_not_overflow_half_precision():
    """The gradient of a *sum* over 4096 examples would: it is normalised by the weight before the backward pass."""
    state = perceptron_state("fp16").replace(loss_scale=loss_scale(2.0**14))
    _, metrics = ft.train_step(state, batch(4096))
    assert metrics["skipped"].item() == 0


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_computes_in_half_and_keeps_everything_in_float32(precision, dtype):
    seen = []

    def objective(model, batch):
        x, _ = batch
        outputs = model(x)
        seen.append(outputs.dtype)
        return ft.Loss((outputs.float() ** 2).sum(), len(x))

    state = ft.init_state(nn.Linear(4, 3), objective, ft.optim.adamw(0.1), precision=precision, ema_decay=0.5)
    state, _ = ft.train_step(state, batch())
    assert seen == [dtype]
    ft.eval_step(state, batch())
    assert seen == [dtype, dtype]
    floating = [leaf for leaf in trees.tensors((state.params, state.opt_state, state.ema)) if leaf.ndim]
    assert {leaf.dtype for leaf in floating} == {torch.float32}


def test_bf16_trains_as_torchs_autocast_does(difference):
    state = perceptron_state("bf16")
    model = ft.to_module(state)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        x, y = batch()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state, _ = ft.train_step(state, (x, y))
    assert difference(state.params, dict(model.named_parameters())) < 2**-8
    assert state.loss_scale is None


def test_only_fp16_has_a_loss_scale():
    assert perceptron_state("fp32").loss_scale is None
    assert perceptron_state("fp64").loss_scale is None
    assert perceptron_state("fp16").loss_scale.scale.item() == scaling.INITIAL_SCALE


def test_fp64_keeps_and_computes_everything_in_float64():
    state = perceptron_state("fp64", ema_decay=0.9, accumulate=2)
    for _ in range(2):
        state, metrics = ft.train_step(state, batch())
    floating = [leaf for leaf in trees.tensors(state) if leaf.dtype.is_floating_point]
    assert {leaf.dtype for leaf in floating if leaf.ndim} == {torch.float64}
    assert metrics["grad_norm"].dtype == torch.float64
