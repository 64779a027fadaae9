"""train_step is a pure function, and trains as a loop in plain torch does."""

import dataclasses
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.foundation import trees
from functrain.foundation.errors import FunctrainError
from functrain.step.scaling import initial_loss_scale

SETTINGS = {
    "plain": {},
    "window": {"accumulate": 3},
    "everything": {"accumulate": 2, "ema_decay": 0.9, "clip_norm": 1.0, "clip_value": 0.5},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16", "accumulate": 2},
    "fp64": {"precision": "fp64"},
}


def global_generators():
    numpy_state = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), numpy_state[1].tolist(), numpy_state[2:]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_step_changes_neither_its_arguments_nor_any_global_generator(settings, everything_state, image_batch, bits):
    state, batch = everything_state(**settings), image_batch()
    for _ in range(3):  # within a window, at its end, and after it
        before, batch_before, generators = bits(state), bits(batch), global_generators()
        new, _ = ft.train_step(state, batch)
        assert bits(state) == before
        assert bits(batch) == batch_before
        assert global_generators() == generators
        assert bits(new) != before
        state = new


def test_the_users_model_is_never_changed(everything, image_batch, bits):
    model = everything()
    before = bits({**model.state_dict()})
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    for seed in range(2):
        state, _ = ft.train_step(state, image_batch(seed))
    ft.eval_step(state, image_batch())
    assert bits({**model.state_dict()}) == before
    assert all(p.grad is None for p in model.parameters())
    assert model.training


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_same_arguments_give_the_same_bits_whatever_the_global_generator(
    settings, everything_state, image_batch, bits
):
    state, batch = everything_state(**settings), image_batch()
    torch.manual_seed(1)
    first = ft.train_step(state, batch)
    torch.manual_seed(2)
    assert bits(first) == bits(ft.train_step(state, batch))


def test_dropout_differs_between_steps_micro_batches_and_seeds(everything_state, image_batch):
    batch = image_batch(size=20)
    losses = set()
    for seed in (0, 1):
        state = everything_state(seed=seed, optimizer=ft.optim.sgd(0.0), accumulate=2)
        for _ in range(2):
            state, first = ft.train_step(state, batch)
            state, both = ft.train_step(state, batch)
            second = 2 * both["loss"] - first["loss"]  # the window's mean is over two of one size
            losses |= {round(first["loss"].item(), 9), round(second.item(), 9)}
    assert len(losses) == 8


def with_metrics(model, batch):
    x, y = batch
    logits = model(x)
    values = F.cross_entropy(logits, y, reduction="none")
    return ft.Loss(values.sum(), float(len(y)), {"top": (logits.amax(1).sum(), torch.tensor(3.0)), "sum": values.sum()})


@pytest.mark.parametrize("objective", [ft.classification(), ft.supervised(F.cross_entropy), with_metrics])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_new_state_has_the_form_of_the_old_one(settings, objective, everything_state, image_batch):
    state = everything_state(objective=objective, **settings)
    for _ in range(3):
        new, _ = ft.train_step(state, image_batch())
        assert trees.structure(new) == trees.structure(state)
        for path, old_leaf, new_leaf in zip(trees.paths(state), trees.leaves(state), trees.leaves(new)):
            assert type(new_leaf) is type(old_leaf), path
            if isinstance(old_leaf, torch.Tensor):
                assert (new_leaf.shape, new_leaf.dtype) == (old_leaf.shape, old_leaf.dtype), path
                assert not new_leaf.requires_grad, path
        state = new


def test_counters_count_updates_micro_batches_and_examples(everything_state, image_batch):
    state = everything_state(accumulate=2)
    seen = []
    for size, options in [(3, {}), (4, {}), (5, {"end_window": True}), (6, {"examples": 2}), (1, {})]:
        state, _ = ft.train_step(state, image_batch(size=size), **options)
        seen.append((state.step, state.micro_step, state.batch_idx, state.samples_seen, state.epoch))
    assert seen == [(0, 1, 1, 3, 0), (1, 0, 2, 7, 0), (2, 0, 3, 12, 0), (2, 1, 4, 14, 0), (3, 0, 5, 15, 0)]


def test_metrics_are_means_over_the_window_and_epoch_totals_sum_up_updates(everything_state, image_batch):
    state = everything_state(accumulate=2)
    state, first = ft.train_step(state, image_batch(0, 2))
    assert set(first) == {"loss", "accuracy"}
    assert state.epoch_totals.eq(0).all()
    state, second = ft.train_step(state, image_batch(1, 6))
    assert set(second) == {"loss", "accuracy", "grad_norm", "skipped", "weight_sum", "lr"}
    assert state.epoch_totals[1, 0].item() == 8
    torch.testing.assert_close(second["loss"], state.epoch_totals[0, 0] / 8)
    assert all(value.ndim == 0 and not value.requires_grad for value in second.values())
    totals = state.epoch_totals
    for _ in range(2):
        state, third = ft.train_step(state, image_batch(2, 3))
    torch.testing.assert_close(state.epoch_totals[0, 0], totals[0, 0] + 6 * third["loss"])


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        # No bias: BatchNorm makes its gradient rounding noise, which Adam blows up to full steps.
        self.first = nn.Linear(5, 7, bias=False)
        self.norm = nn.BatchNorm1d(7)
        self.second = nn.Linear(7, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.norm(self.first(x))))


OPTIMIZERS = {
    "sgd": (
        lambda: ft.optim.sgd(0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
    ),
    "adamw": (lambda: ft.optim.adamw(0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
}


@pytest.mark.parametrize("clip_norm", [None, 0.3])
@pytest.mark.parametrize(("ours", "torchs"), OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_twenty_steps_equal_a_plain_torch_loop(ours, torchs, clip_norm, difference):
    model = Perceptron().double()
    state = ft.init_state(model, ft.classification(label_smoothing=0.1), ours(), precision="fp64", clip_norm=clip_norm)
    optimizer = torchs(model.parameters())
    for _ in range(20):
        x, y = torch.randn(9, 5, dtype=torch.float64), torch.randint(3, (9,))
        loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm or float("inf"))
        optimizer.step()
        state, metrics = ft.train_step(state, (x, y))
        assert metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-12)
        assert metrics["grad_norm"].item() == pytest.approx(norm.item(), rel=1e-11)
    assert difference(state.params, dict(model.named_parameters())) < 1e-12
    assert difference(state.buffers, dict(model.named_buffers())) < 1e-12
    assert state.buffers["norm.num_batches_tracked"].item() == 20


class TiedText(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix = nn.Linear(6, 6)
        self.decoder = nn.Linear(6, 11, bias=False)
        self.decoder.weight = self.embed.weight

    def forward(self, tokens):
        return self.decoder(torch.tanh(self.mix(self.embed(tokens))))


def test_tied_parameters_stay_one_parameter_and_train_as_in_torch(difference):
    model = TiedText().double()
    state = ft.init_state(model, ft.language_modelling(), ft.optim.sgd(0.5), precision="fp64", ema_decay=0.5)
    assert set(state.params) == set(state.ema.params) == {"embed.weight", "mix.weight", "mix.bias"}
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        tokens = torch.randint(11, (4, 8))
        optimizer.zero_grad()
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
        state, _ = ft.train_step(state, (tokens, tokens))
    assert difference(state.params, dict(model.named_parameters())) < 1e-12
    for ema in (False, True):
        module = ft.to_module(state, ema=ema)
        assert module.decoder.weight is module.embed.weight


def test_integer_and_batchnorm_buffers_equal_those_of_a_plain_torch_loop(
    everything, everything_state, image_batch, difference
):
    model = everything().double()
    for accumulate in (1, 3):
        state = everything_state(accumulate=accumulate, optimizer=ft.optim.sgd(0.0), precision="fp64")
        reference = everything().double()
        reference.load_state_dict(model.state_dict())
        for seed in range(3):
            x, y = image_batch(seed)
            with torch.no_grad():
                reference(x.double())
            state, _ = ft.train_step(state, (x, y))
            if state.accumulator is not None:
                assert difference(state.accumulator.buffers, dict(reference.named_buffers())) < 1e-14
        assert state.buffers["calls"].item() == state.buffers["norm.num_batches_tracked"].item() == 3
        assert difference(state.buffers, dict(reference.named_buffers())) < 1e-14


def test_a_frozen_parameter_gets_no_update_and_no_optimizer_state(everything_state, image_batch):
    state = everything_state(ema_decay=0.5)
    assert "scale" in state.params
    assert "scale" not in state.ema.params
    assert not any("scale" in path for path in trees.paths(state.opt_state))
    new, _ = ft.train_step(state, image_batch())
    assert new.params["scale"] is state.params["scale"]
    assert not any(torch.equal(new.params[name], state.params[name]) for name in state.ema.params)


def test_a_frozen_batchnorm_keeps_its_mode_and_its_statistics(everything, image_batch):
    model = everything()
    model.norm.eval()
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    state, _ = ft.train_step(state, image_batch())
    assert state.buffers["norm.num_batches_tracked"].item() == 0
    assert torch.equal(state.buffers["norm.running_mean"], torch.zeros(3))
    assert not ft.to_module(state).norm.training
    assert ft.to_module(state).training


def test_a_model_given_in_evaluation_mode_is_trained_in_training_mode(everything, image_batch):
    state = ft.init_state(everything().eval(), ft.classification(), ft.optim.sgd(0.1))
    state, _ = ft.train_step(state, image_batch())
    assert state.buffers["norm.num_batches_tracked"].item() == 1
    assert not ft.to_module(state).training


def test_the_callers_grad_mode_has_no_say(everything_state, image_batch, bits):
    state, batch = everything_state(), image_batch()
    expected = ft.train_step(state, batch)
    with torch.no_grad():
        assert bits(ft.train_step(state, batch)) == bits(expected)


@pytest.mark.parametrize("step", [ft.train_step, ft.eval_step])
def test_a_step_within_autocast_is_refused_for_the_state_has_a_precision(step, everything_state, image_batch):
    state, batch = everything_state(), image_batch()
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(FunctrainError, match=r"outside of torch.autocast.*precision='bf16'"),
    ):
        step(state, batch)


def test_the_callers_default_dtype_has_no_say(everything_state, image_batch, bits):
    state, batch = everything_state(precision="fp16"), image_batch()
    expected = ft.train_step(state, batch)
    torch.set_default_dtype(torch.float64)
    try:
        assert bits(initial_loss_scale("fp16", None, torch.device("cpu"))) == bits(state.loss_scale)
        assert bits(ft.train_step(state, batch)) == bits(expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_parameter_the_loss_does_not_use_has_gradient_zero():
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})

    def objective(model, batch):
        return ft.Loss((model["used"](batch) ** 2).sum(), len(batch))

    state = ft.init_state(model, objective, ft.optim.sgd(0.1))
    new, _ = ft.train_step(state, torch.ones(3, 2))
    assert torch.equal(new.params["unused.weight"], state.params["unused.weight"])
    assert not torch.equal(new.params["used.weight"], state.params["used.weight"])


def test_the_order_of_the_dictionaries_in_a_state_does_not_matter(everything_state, image_batch, bits):
    state = everything_state(accumulate=2, ema_decay=0.5)

    def reverse(tree):
        return dict(reversed(tree.items()))

    state, _ = ft.train_step(state, image_batch(0))
    window = state.accumulator
    window = type(window)(reverse(window.grads), window.sums, reverse(window.buffers), window.count, window.used)
    turned = state.replace(
        params=reverse(state.params),
        buffers=reverse(state.buffers),
        ema=dataclasses.replace(state.ema, params=reverse(state.ema.params)),
        accumulator=window,
    )
    assert bits(ft.train_step(turned, image_batch(1))[0]) == bits(ft.train_step(state, image_batch(1))[0])


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        (lambda model, batch: model(batch[0]).sum(), TypeError, r"returned Tensor, not a functrain.Loss"),
        (
            lambda model, batch: ft.Loss(3.0, 1.0),
            TypeError,
            "Loss.total must be a tensor to be differentiated, got 3.0",
        ),
        (lambda model, batch: ft.Loss(model(batch[0]), 1.0), ValueError, "returns sums, 0-d tensors"),
        (
            lambda model, batch: ft.Loss(model(batch[0]).sum(), 1.0, {"lr": 1.0, "skipped": 2.0}),
            ValueError,
            "metric named lr, skipped, a name of the step's own",
        ),
    ],
)
def test_an_objective_that_returns_something_else_is_told_what_to_return(
    objective, error, message, everything_state, image_batch
):
    with pytest.raises(error, match=message):
        ft.train_step(everything_state(objective=objective), image_batch())


def test_a_batch_without_examples_to_count_is_refused(everything_state):
    state = everything_state(objective=lambda model, batch: ft.Loss(model(torch.ones(2, 1, 5, 5)).sum(), 1.0))
    with pytest.raises(TypeError, match="a tensor with a row for each example"):
        ft.train_step(state, ("text",))
    assert ft.train_step(state, ("text",), examples=2)[0].samples_seen == 2
