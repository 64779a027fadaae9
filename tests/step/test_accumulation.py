"""The update of a window of uneven micro-batches is the update of their concatenation.

In float64 to 1e-12, which is some thousand roundings; the network has no BatchNorm, whose statistics see
micro-batches. SGD with momentum, so that the update is the gradient and not its sign.
"""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain.foundation import trees

CLIPPINGS = [
    {},
    {"clip_norm": 0.1},
    {"clip_value": 0.02},
    {"clip_norm": 0.1, "clip_value": 0.02},
]


@functools.cache
def initial(accumulate, clipping=0, objective=None):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    return ft.init_state(
        model,
        objective or ft.classification(label_smoothing=0.1),
        ft.optim.sgd(1.0, momentum=0.9),
        precision="fp64",
        accumulate=accumulate,
        ema_decay=0.5,
        **CLIPPINGS[clipping],
    )


@st.composite
def windows(draw):
    """Uneven micro-batches (inputs, labels, weights), not all of weight 0."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    weights = [draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=n, max_size=n)) for n in sizes]
    weights[-1][0] = 1.0
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return [
        (
            torch.randn(len(w), 4, generator=generator, dtype=torch.float64),
            torch.randint(3, (len(w),), generator=generator),
            torch.tensor(w, dtype=torch.float64),
        )
        for w in weights
    ]


def run(state, micro_batches, *, end_window=False):
    metrics = {}
    for index, batch in enumerate(micro_batches):
        last = index == len(micro_batches) - 1
        state, metrics = ft.train_step(state, batch, end_window=end_window and last)
    return state, metrics


def concatenation(micro_batches):
    return tuple(torch.cat(parts) for parts in zip(*micro_batches, strict=True))


def assert_same_update(left, right, difference, tolerance=1e-12):
    (left_state, left_metrics), (right_state, right_metrics) = left, right
    for field in ("params", "opt_state", "ema", "epoch_totals"):
        assert difference(getattr(left_state, field), getattr(right_state, field)) < tolerance, field
    assert left_metrics.keys() == right_metrics.keys()
    for name, value in left_metrics.items():
        torch.testing.assert_close(value, right_metrics[name], rtol=tolerance, atol=tolerance)
    assert left_state.step == right_state.step
    assert left_state.samples_seen == right_state.samples_seen


@given(windows(), st.sampled_from(range(len(CLIPPINGS))))
@settings(max_examples=25, deadline=None)
def test_the_update_of_uneven_micro_batches_is_that_of_their_concatenation(difference, micro_batches, clipping):
    window = run(initial(len(micro_batches), clipping), micro_batches)
    whole = run(initial(1, clipping), [concatenation(micro_batches)])
    assert_same_update(window, whole, difference)


@given(windows(), st.randoms())
@settings(max_examples=12, deadline=None)
def test_the_order_of_micro_batches_within_a_window_does_not_matter(difference, micro_batches, rng):
    shuffled = list(micro_batches)
    rng.shuffle(shuffled)
    state = initial(len(micro_batches))
    assert_same_update(run(state, micro_batches), run(state, shuffled), difference)


@given(windows())
@settings(max_examples=12, deadline=None)
def test_a_window_that_ends_early_weighs_what_it_has(difference, micro_batches):
    short = run(initial(len(micro_batches) + 3), micro_batches, end_window=True)
    assert_same_update(short, run(initial(1), [concatenation(micro_batches)]), difference)
    window = short[0].accumulator
    assert window.count == 0
    assert all(leaf.eq(0).all() for leaf in trees.tensors((window.grads, window.sums)))


@given(windows(), windows())
@settings(max_examples=8, deadline=None)
def test_a_window_after_an_early_end_starts_from_nothing(difference, first, second):
    state, _ = run(initial(9), first, end_window=True)
    whole, _ = run(initial(1), [concatenation(first)])
    assert_same_update(
        run(state, second, end_window=True), run(whole, [concatenation(second)]), difference, tolerance=1e-11
    )


@given(windows(), st.integers(1, 4))
@settings(max_examples=12, deadline=None)
def test_padding_of_weight_zero_changes_no_update(difference, micro_batches, padding):
    x, y, weight = micro_batches[0]
    rows = torch.arange(padding) % len(x)
    padded = (torch.cat([x, x[rows]]), torch.cat([y, y[rows]]), torch.cat([weight, torch.zeros(padding)]))
    if weight.sum() == 0:
        return
    state = initial(1)
    assert_same_update(ft.train_step(state, padded, examples=len(x)), ft.train_step(state, (x, y, weight)), difference)


@pytest.mark.parametrize("examples", [1, 5])
def test_padding_of_an_unweighted_batch_changes_no_update(examples, difference):
    """What a loop does with a ragged last batch."""
    x, y = torch.randn(examples, 4, dtype=torch.float64), torch.randint(3, (examples,))
    rows = torch.arange(8) % examples
    weight = (torch.arange(8) < examples).double()
    for objective in (None, ft.supervised(nn.functional.cross_entropy), ft.supervised(nn.CrossEntropyLoss())):
        state = initial(1, 0, objective)
        padded = ft.train_step(state, (x[rows], y[rows], weight), examples=examples)
        assert_same_update(padded, ft.train_step(state, (x, y)), difference)


@given(windows())
@settings(max_examples=8, deadline=None)
def test_a_snapshot_within_a_window_continues_to_the_same_bits(bits, micro_batches):
    state = initial(len(micro_batches))
    for position in range(1, len(micro_batches)):
        there, _ = run(state, micro_batches[:position])
        assert there.micro_step == position
        leaf_list, spec = trees.flatten(there)
        copies = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaf_list]
        back = trees.unflatten(spec, copies)
        rest = micro_batches[position:]
        assert bits(run(back, rest)) == bits(run(there, rest))


def test_tokens_are_what_text_is_weighed_by(difference):
    """Long and short texts in different micro-batches: ignored tokens have no say in the mean."""
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7))
    tokens = torch.randint(7, (4, 6))
    targets = tokens.clone()
    targets[0, 1:], targets[3, 2:] = -100, -100

    def state(accumulate):
        objective = ft.language_modelling()
        return ft.init_state(
            model, objective, ft.optim.sgd(1.0, momentum=0.9), precision="fp64", accumulate=accumulate, ema_decay=0.5
        )

    window = run(state(2), [(tokens[:1], targets[:1]), (tokens[1:], targets[1:])])
    assert_same_update(window, run(state(1), [(tokens, targets)]), difference)


def test_a_window_is_the_gradient_of_the_mean_in_plain_torch(difference):
    state = initial(3)
    model = ft.to_module(state)
    batches = [(torch.randn(n, 4, dtype=torch.float64), torch.randint(3, (n,))) for n in (2, 5, 1)]
    new, _ = run(state, batches)
    x, y = concatenation(batches)
    nn.functional.cross_entropy(model(x), y, label_smoothing=0.1).backward()
    expected = {name: p - p.grad for name, p in model.named_parameters()}
    assert difference(new.params, expected) < 1e-12
