"""Integrated gradients: completeness, closed forms, independent quadrature, and the axioms of the paper."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import nn

import functrain as ft
from functrain.attribution import integrated_gradients
from functrain.attribution.integrated import _GAUSS, _KRONROD, _NODES

F64 = torch.float64


def randn(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(*layers, seed=0):
    """A score by a network of these layers with fixed parameters: its first output."""
    net = nn.Sequential(*layers).double().eval()
    for number, parameter in enumerate(net.parameters()):
        parameter.data = randn(*parameter.shape, seed=seed + number + 1) / max(parameter[0].numel(), 1) ** 0.5
        parameter.requires_grad_(False)
    return lambda x: net(x)[:, 0]


SMOOTH = network(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3))
KINKED = network(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
POOLED = network(
    *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)),
)


@pytest.mark.parametrize(("weights", "degree"), [(_KRONROD, 11), (_GAUSS, 5)])
def test_the_rules_are_exact_up_to_their_degree(weights, degree):
    for power in range(degree + 1):
        exact = 2 / (power + 1) if power % 2 == 0 else 0.0
        assert sum(w * x**power for w, x in zip(weights, _NODES)) == pytest.approx(exact, abs=1e-14)
    power = degree + 1
    assert abs(sum(w * x**power for w, x in zip(weights, _NODES)) - 2 / (power + 1)) > 1e-5


def test_closed_forms():
    x, b = randn(4, 2), randn(4, 2, seed=1)
    product = integrated_gradients(lambda t: t[:, 0] * t[:, 1], x, b).values
    # d_0 * mean of x_1 on the path, which is linear
    torch.testing.assert_close(product, (x - b) * (x + b).flip(1) / 2, rtol=0, atol=1e-12)
    w = torch.tensor([0.7, -1.3], dtype=F64)
    exponential = integrated_gradients(lambda t: (t @ w).exp(), x, b).values
    exact = w * (x - b) * (((x @ w).exp() - (b @ w).exp()) / ((x - b) @ w))[:, None]
    torch.testing.assert_close(exponential, exact, rtol=0, atol=1e-7)


def by_quad(score, x, b):
    """The definition, by another library's quadrature, one number at a time."""

    def slope(t, i):
        point = (b + t * (x - b)).requires_grad_()
        return torch.autograd.grad(score(point[None])[0], point)[0][i].item()

    return [(x - b)[i].item() * quad(slope, 0, 1, args=(i,), epsabs=1e-11, limit=200)[0] for i in range(len(x))]


def test_a_smooth_network_as_scipy_integrates_it():
    x, b = randn(1, 5), randn(1, 5, seed=1)
    found = integrated_gradients(SMOOTH, x, b)
    np.testing.assert_allclose(found.values[0].numpy(), by_quad(SMOOTH, x[0], b[0]), rtol=0, atol=1e-7)
    assert found.evaluations.item() < 500


def exact_of_relus(x, b, inner, bias, outer):
    """Of outer . relu(inner x + bias): each neuron is on for a part of the path."""
    start, change = inner @ b + bias, inner @ (x - b)
    crossing = torch.where(change != 0, -start / change, torch.zeros(())).clamp(0, 1)
    on_first, on_last = start > 0, start + change > 0
    share = torch.where(on_first & on_last, 1.0, 0.0).to(F64)
    share = torch.where(on_first & ~on_last, crossing, share)
    share = torch.where(~on_first & on_last, 1 - crossing, share)
    return (x - b) * ((outer * share) @ inner)


@pytest.mark.parametrize("hidden", [1, 7, 60, 400])
def test_a_network_of_relus_to_the_last_digits(hidden):
    inner, bias, outer = randn(hidden, 5), randn(hidden, seed=1), randn(hidden, seed=2)
    x, b = randn(1, 5, seed=3), randn(1, 5, seed=4)
    found = integrated_gradients(lambda t: torch.relu(t @ inner.T + bias) @ outer, x, b)
    exact = exact_of_relus(x[0], b[0], inner, bias, outer)
    torch.testing.assert_close(found.values[0], exact, rtol=0, atol=1e-7)
    # a kink takes a few gradients: bisection needs 20 and more, times the nodes of a rule
    assert found.evaluations.item() < 450 + 10 * hidden + 50


@pytest.mark.parametrize(("score", "shape"), [(SMOOTH, (5,)), (KINKED, (5,)), (POOLED, (1, 8, 8))])
def test_attributions_add_up_to_the_difference_of_the_scores(score, shape):
    x, b = randn(3, *shape), randn(3, *shape, seed=9)
    for baseline, start in ((None, torch.zeros_like(x)), (0.5, torch.full_like(x, 0.5)), (b, b)):
        found = integrated_gradients(score, x, baseline)
        gap = (found.values.flatten(1).sum(1) - (score(x) - score(start))).abs()
        assert gap.max() < 1e-6
        torch.testing.assert_close(found.completeness, gap, rtol=0, atol=1e-13)
        assert bool((found.error <= 1e-7).all())


def test_of_a_trained_digits_network_they_add_up_at_the_default_tolerance():
    torch.manual_seed(0)
    state = ft.init_state(
        ft.models.DigitsCNN(channels=4, dropout=0.1), ft.classification(), ft.optim.adamw(3e-3), precision="fp64"
    )
    batches = list(ft.data.Loader(ft.data.digits("train"), batch_size=64))
    for batch in batches[:20]:
        state, _ = ft.train_step(state, batch)
    found = ft.explain(state, (batches[0][0][:3], None))
    gap = (found.values.flatten(1).sum(1) - (found.scores - found.baseline_scores)).abs()
    assert gap.max() < 1e-6
    assert found.completeness.max() < 1e-6
    assert bool((found.error <= 1e-7).all())


def test_in_float32_they_add_up_to_rounding():
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))
    for number, parameter in enumerate(net.parameters()):
        parameter.data = randn(*parameter.shape, seed=number, dtype=torch.float32)
    found = integrated_gradients(lambda x: net(x)[:, 0], randn(4, 5, dtype=torch.float32))
    assert found.values.dtype is torch.float32
    assert found.completeness.max() < 1e-3


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), examples=st.integers(1, 5), rows=st.sampled_from([9, 64]))
def test_an_example_does_not_depend_on_its_companions(seed, examples, rows):
    x, b = randn(examples, 5, seed=seed), randn(1, 5, seed=seed + 1)
    together = integrated_gradients(KINKED, x, b, rows=rows)
    for place in range(examples):
        alone = integrated_gradients(KINKED, x[place : place + 1], b, rows=rows)
        assert torch.equal(alone.values[0], together.values[place])
        assert torch.equal(alone.completeness[0], together.completeness[place])


def test_input_and_baseline_exchanged_change_the_sign():
    x, b = randn(3, 5), randn(3, 5, seed=1)
    there, back = integrated_gradients(KINKED, x, b), integrated_gradients(KINKED, b, x)
    torch.testing.assert_close(there.values, -back.values, rtol=0, atol=2e-7)


def test_an_input_that_does_not_matter_gets_nothing():
    found = integrated_gradients(lambda x: x[:, 0].sin(), randn(3, 2))
    assert torch.equal(found.values[:, 1], torch.zeros(3, dtype=F64))
    constant = integrated_gradients(lambda x: torch.ones(len(x), dtype=F64), randn(3, 2))
    assert torch.equal(constant.values, torch.zeros(3, 2, dtype=F64))


def test_of_a_sum_of_scores_it_is_the_sum():
    x = randn(2, 5)
    parts = [integrated_gradients(score, x).values for score in (SMOOTH, KINKED)]
    whole = integrated_gradients(lambda t: 2 * SMOOTH(t) - KINKED(t), x).values
    torch.testing.assert_close(whole, 2 * parts[0] - parts[1], rtol=0, atol=4e-7)


def test_several_inputs_and_those_that_cannot_vary():
    def score(given):
        (images, numbers), scale = given["inputs"], given["scale"]
        return images.square().flatten(1).sum(1) * scale + numbers[:, 0].exp()

    inputs = {"inputs": (randn(3, 2, 2), randn(3, 1, seed=1)), "scale": torch.tensor([1, 2, 3])}
    found = integrated_gradients(score, inputs)
    assert found.values["scale"] is None
    scaled = inputs["inputs"][0].square() * inputs["scale"].view(-1, 1, 1)
    torch.testing.assert_close(found.values["inputs"][0], scaled, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.values["inputs"][1], inputs["inputs"][1].exp() - 1, rtol=0, atol=1e-7)
    same = integrated_gradients(score, inputs, {**inputs, "inputs": tuple(0 * each for each in inputs["inputs"])})
    torch.testing.assert_close(same.values["inputs"][0], found.values["inputs"][0], rtol=0, atol=0)


@pytest.mark.parametrize("score", [lambda x: (300 * x).sin().sum(1), lambda x: (x * 40).floor().sum(1) * x[:, 0]])
def test_where_evaluations_do_not_suffice_the_error_tells(score):
    found = integrated_gradients(score, torch.ones(2, 3, dtype=F64), max_evaluations=90)
    assert bool((found.evaluations <= 90).all())
    assert bool((found.error >= found.completeness - 1e-9).all())
    assert bool((found.error > 1e-3).all())


def test_a_score_that_is_not_a_number_ends_and_tells():
    found = integrated_gradients(lambda x: x[:, 0].log(), torch.tensor([[-1.0], [2.0]], dtype=F64), 1.0)
    assert found.completeness[0].isnan()
    assert found.completeness[1] < 1e-7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": torch.ones(2, 3, dtype=torch.long)}, "they need an input of floating-point numbers"),
        ({"inputs": torch.ones(0, 3)}, "a row for each example"),
        ({"inputs": (torch.ones(2, 3), torch.ones(3, 3))}, r"tensors of \[2, 3\] rows"),
        ({"baseline": torch.ones(5)}, r"must broadcast to the inputs \[2, 3\]; got \[5\]"),
        ({"baseline": {"a": torch.ones(3)}}, "must be a tensor for each of the inputs"),
        ({"tolerance": 0.0}, "tolerance must be a number greater than 0"),
        ({"max_evaluations": 5}, "max_evaluations must be 9 or more"),
        ({"rows": 0}, "must be 1 or more"),
        ({"score": lambda x: x}, r"one floating-point number for each row, \[9\]; got \[9, 3\]"),
    ],
)
def test_what_cannot_be_attributed_is_refused(arguments, message):
    given = {"score": lambda x: x.sum(1), "inputs": torch.ones(2, 3), **arguments}
    with pytest.raises(ValueError, match=message):
        integrated_gradients(given.pop("score"), given.pop("inputs"), given.pop("baseline", None), **given)
