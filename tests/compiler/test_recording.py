"""A recording tells what a step computes: the same for all values, another for another computation."""

import random
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.compiler import recording
from functrain.compiler.layout import Layout
from functrain.compiler.recording import record
from functrain.compiler.repeatability import record_twice
from functrain.foundation.trees import flatten
from functrain.step.train import ACCUMULATE, UPDATE


def twice(known):
    return partial(record_twice, known=lambda recording: known)


def recorded(state, batch, core=UPDATE, key=0, via=record):
    state_leaves, batch_leaves = flatten(state), flatten(batch)
    layouts = [Layout.of(*part) for part in (state_leaves, batch_leaves)]
    inputs = [
        t for layout, (leaf_list, _) in zip(layouts, (state_leaves, batch_leaves)) for t in layout.tensors(leaf_list)
    ]
    return via(core, *layouts, inputs, key=lambda: key)


class Mixed(nn.Module):
    """Convolution, BatchNorm, attention, dropout: operations with saved tensors, views and in-place writes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        h = F.relu(self.norm(self.conv(x)), inplace=True)
        return self.head(self.attention(h.flatten(2).transpose(1, 2)).mean(1))


def mixed_state(seed=0, **options):
    torch.manual_seed(seed)
    return ft.init_state(Mixed(), ft.classification(), ft.optim.adamw(1e-3), clip_norm=1.0, **options)


def images(seed, size=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 1, 4, 4, generator=generator), torch.randint(3, (size,), generator=generator)


def test_values_make_no_difference():
    first = recorded(mixed_state(0), images(0), key=1)
    assert first.random
    for seed in range(1, 4):
        assert recorded(mixed_state(seed), images(seed), key=seed) == first


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp64"])
def test_values_make_no_difference_in_other_precisions(precision):
    one, other = (recorded(mixed_state(seed, precision=precision), images(seed)) for seed in range(2))
    assert one == other


def test_recording_changes_neither_the_state_nor_the_generators(bits):
    state, generator = mixed_state(), torch.get_rng_state()
    before = bits(state)
    recorded(state, images(0))
    assert bits(state) == before
    assert torch.equal(torch.get_rng_state(), generator)


def objective(change):
    def mean_loss(model, batch):
        inputs, targets = batch
        values = F.cross_entropy(model(inputs), targets, reduction="none")
        return ft.Loss(change(values).sum(), len(targets), {})

    return mean_loss


def plain_state(change=lambda values: values, **options):
    torch.manual_seed(0)
    optimizer = options.pop("optimizer", ft.optim.sgd(0.1))
    return ft.init_state(nn.Linear(4, 3), objective(change), optimizer, **options)


def vectors(size=5):
    return torch.ones(size, 4), torch.zeros(size, dtype=torch.int64)


CONSTANT = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


@pytest.mark.parametrize(
    "state",
    [
        lambda: plain_state(lambda values: values * 2),
        lambda: plain_state(lambda values: values * 3),
        lambda: plain_state(lambda values: values * CONSTANT),
        lambda: plain_state(lambda values: values * (CONSTANT + 1)),
        lambda: plain_state(lambda values: values.flip(0)),
        lambda: plain_state(optimizer=ft.optim.sgd(0.1, momentum=0.9)),
        lambda: plain_state(optimizer=ft.optim.sgd(0.1, weight_decay=0.1)),
        lambda: plain_state(clip_norm=1.0),
        lambda: plain_state(ema_decay=0.9),
        lambda: plain_state(precision="bf16"),
        lambda: plain_state(accumulate=2),
    ],
)
def test_another_computation_is_another_recording(state):
    assert recorded(state(), vectors()).digest != recorded(plain_state(), vectors()).digest


def test_constants_differ_by_their_values():
    twice = [recorded(plain_state(lambda values, c=c: values * c), vectors()) for c in (CONSTANT, CONSTANT.clone())]
    assert twice[0] == twice[1]
    assert recorded(plain_state(lambda values: values * -CONSTANT), vectors()).digest != twice[0].digest


def test_which_of_two_equal_tensors_is_used_makes_a_difference():
    def using(index):
        def change(values):
            pair = (values * 2, values * 2)
            return pair[0] + pair[index]

        return recorded(plain_state(change), vectors()).digest

    assert using(0) != using(1)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values if values.sum() > 0 else -values,
        lambda values: values * values.sum().item(),
        lambda values: torch.zeros(())[0],
    ],
    ids=["branch", "item", "error"],
)
def test_what_depends_on_values_or_fails_has_no_recording(change):
    assert recorded(plain_state(change), vectors()) is None


def test_a_recording_says_whether_sizes_depend_on_values():
    assert not recorded(plain_state(lambda values: values[values > 0]), vectors()).fixed
    assert recorded(plain_state(lambda values: values[torch.tensor([0, 2])]), vectors()).fixed


def test_a_state_too_large_for_an_eager_step_is_left_to_the_tracer(monkeypatch):
    monkeypatch.setattr(recording, "LARGEST_STATE", 10)
    assert recorded(plain_state(), vectors()) is None


def test_the_kinds_of_step_differ():
    state = plain_state(accumulate=2)
    assert recorded(state, vectors(), ACCUMULATE).digest != recorded(state, vectors(), UPDATE).digest


def watched_state(disturb):
    """A state, and the list that its model's calls make longer."""
    calls = []

    class Watched(nn.Linear):
        seen = 0

        def forward(self, x):
            calls.append(1)
            disturb(self)
            return super().forward(x)

    return ft.init_state(Watched(2, 1), ft.regression(), ft.optim.sgd(0.1)), calls


@pytest.mark.parametrize(("known", "runs"), [(True, 1), (False, 2)])
def test_a_known_computation_is_run_once_and_another_twice(known, runs):
    state, calls = watched_state(lambda module: None)
    assert recorded(state, (torch.ones(4, 2), torch.ones(4, 1)), via=twice(known)) is not None
    assert len(calls) == runs


@pytest.mark.parametrize(
    "disturb",
    [
        lambda module: setattr(module, "seen", module.seen + 1),
        lambda module: random.random(),
        lambda module: np.random.rand(),
    ],
    ids=["module", "python", "numpy"],
)
def test_a_known_computation_is_run_again_if_a_module_has_changed_or_python_has_drawn(disturb):
    state, calls = watched_state(disturb)
    assert recorded(state, (torch.ones(4, 2), torch.ones(4, 1)), via=twice(True)) is not None
    assert len(calls) == 2
