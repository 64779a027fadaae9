"""Laws of whole updates that hold for every loss of the registry, in float64.

With weights, ignored labels, class weights, padding, clipping, a moving average and schedules at once; a new loss is
covered by being entered in the registry.
"""

import functools
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain.objectives import contrastive, weighted_sum
from functrain.objectives.losses import BINARY, CLASSES, PAIRS, REGISTRY, TEACHERS

UPDATES = 3
OPTIONS = {"class_weights": (0.5, 1.0, 2.0, 1.5), "pos_weight": 1.5}
every_loss = pytest.mark.parametrize("name", sorted(REGISTRY))


class TwoHeads(nn.Module):
    """Class logits `[B, 4, 2]` for one loss, values `[B, 8]` for another, a pair of embeddings for a third."""

    def __init__(self, name):
        super().__init__()
        self.body, self.head, self.name = nn.Linear(4, 6), nn.Linear(6, 8), name

    def forward(self, x):
        hidden = torch.tanh(self.body(x))
        if self.name in PAIRS:
            return {"first": self.head(hidden), "second": hidden @ self.head.weight.T}
        return self.head(hidden).unflatten(1, (4, 2)) if self.name in {**CLASSES, **TEACHERS} else self.head(hidden)


def objective(name):
    if name in PAIRS:
        return weighted_sum({"pairs": contrastive("first", "second", groups="groups")})
    known = inspect.signature(REGISTRY[name]).parameters
    return ft.supervised(name, options={key: value for key, value in OPTIONS.items() if key in known})


@functools.cache
def initial(name, accumulate):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = TwoHeads(name)
    return ft.init_state(
        model,
        objective(name),
        # No root of a small number, so that the rounding of a sum stays a rounding.
        ft.optim.adamw(ft.schedules.cosine(0.1, 20, warmup_steps=2), eps=1e-3),
        precision="fp64",
        accumulate=accumulate,
        clip_norm=0.05,
        ema=ft.optim.ema(0.9, warmup=True, every=2),
    )


def targets_for(name, size, group, generator):
    if name in PAIRS:
        return {"groups": torch.full((size,), group)}
    if name in CLASSES:
        labels = torch.randint(4, (size, 2), generator=generator)
    elif name in BINARY:
        labels = torch.randint(2, (size, 8), generator=generator)
    elif name in TEACHERS:
        return torch.randn(size, 4, 2, generator=generator, dtype=torch.float64)
    else:
        return torch.randn(size, 8, generator=generator, dtype=torch.float64)
    ignored = torch.rand(labels.shape, generator=generator) < 0.2
    ignored[0, 0] &= group > 0  # not all of the window
    return torch.where(ignored, -100, labels)


@st.composite
def windows(draw, name):
    """As many windows as updates, each of micro-batches of random sizes and weights, not all of them 0."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    weights = [draw(st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=n, max_size=n)) for n in sizes]
    weights[0][0] = 1.0
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return [
        [
            (
                torch.randn(size, 4, generator=generator, dtype=torch.float64),
                targets_for(name, size, group, generator),
                torch.tensor(weight, dtype=torch.float64),
            )
            for group, (size, weight) in enumerate(zip(sizes, weights))
        ]
        for _ in range(UPDATES)
    ]


def joined(parts):
    if isinstance(parts[0], dict):
        return {key: joined([part[key] for part in parts]) for key in parts[0]}
    return torch.cat(parts)


def concatenation(micro_batches, padding=0):
    inputs, targets, weight = (joined(column) for column in zip(*micro_batches, strict=True))
    rows = [*range(len(weight)), *[0] * padding]
    weight = torch.cat([weight, torch.zeros(padding, dtype=torch.float64)])
    taken = {key: value[rows] for key, value in targets.items()} if isinstance(targets, dict) else targets[rows]
    return inputs[rows], taken, weight


def trained(state, batches):
    for batch in batches:
        state, metrics = ft.train_step(state, batch)
    assert metrics["skipped"].item() == 0
    return state


def assert_close(left, right, difference):
    for field in ("params", "opt_state", "ema", "epoch_totals"):
        assert difference(getattr(left, field), getattr(right, field)) < 1e-10, field
    assert left.step == right.step


@every_loss
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_the_update_of_micro_batches_is_that_of_their_padded_concatenation_with_any_loss(name, data, difference):
    drawn = data.draw(windows(name))
    # A pair's negatives are its group's, and padding, of weight 0, is no negative.
    window = trained(initial(name, len(drawn[0])), [batch for micro_batches in drawn for batch in micro_batches])
    whole = trained(initial(name, 1), [concatenation(micro_batches, padding=2) for micro_batches in drawn])
    assert_close(window, whole, difference)


@every_loss
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_the_order_of_micro_batches_matters_to_no_loss_beyond_rounding(name, data, difference):
    drawn = data.draw(windows(name))
    state = initial(name, len(drawn[0]))
    forwards = trained(state, [batch for micro_batches in drawn for batch in micro_batches])
    backwards = trained(state, [batch for micro_batches in drawn for batch in reversed(micro_batches)])
    assert_close(forwards, backwards, difference)


@every_loss
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_the_content_of_an_example_of_weight_zero_changes_no_bit_of_an_update_with_any_loss(name, data, bits):
    drawn, others = data.draw(windows(name)), data.draw(windows(name))
    left = [concatenation(micro_batches, padding=3) for micro_batches in drawn]
    right = []
    for (inputs, targets, weight), micro_batches in zip(left, others):
        other_inputs, other_targets, _ = concatenation(micro_batches)
        rows = torch.arange(len(weight)) % len(other_inputs)
        counts = weight.ne(0)
        if not isinstance(targets, dict):
            targets = torch.where(counts.view(-1, *[1] * (targets.ndim - 1)), targets, other_targets[rows])
        right.append((torch.where(counts[:, None], inputs, other_inputs[rows]), targets, weight))
    assert bits(trained(initial(name, 1), left)) == bits(trained(initial(name, 1), right))


@every_loss
def test_a_target_that_makes_the_loss_not_finite_is_refused_with_any_loss(name, bits):
    generator = torch.Generator().manual_seed(0)
    targets = targets_for(name, 4, 0, generator)
    inputs = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    inputs[0, 0] = float("nan")
    state = initial(name, 1)
    new, metrics = ft.train_step(state, (inputs, targets, torch.ones(4, dtype=torch.float64)))
    assert metrics["skipped"].item() == 1
    assert bits((new.params, new.opt_state, new.ema)) == bits((state.params, state.opt_state, state.ema))
