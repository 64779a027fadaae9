"""Methods that take gradients: closed forms, and draws that depend on the key alone."""

import pytest
import torch

from functrain.attribution import gradient_shap, input_x_gradient, saliency, smooth_grad
from functrain.foundation.keys import fold_in, generator

X = torch.tensor([[1.0, -3.0], [2.0, 0.5], [0.0, 4.0]], dtype=torch.float64)
W = torch.tensor([0.5, -2.0], dtype=torch.float64)


def square(x):
    return (x**2).sum(1)


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_one_gradient_each(rows):
    assert torch.equal(saliency(square, X, rows=rows).values, 2 * X.abs())
    assert torch.equal(input_x_gradient(square, X, rows=rows).values, 2 * X * X)
    found = saliency(square, X, rows=rows)
    assert torch.equal(found.scores, square(X))
    assert (found.completeness, found.evaluations.tolist()) == (None, [1, 1, 1])


@pytest.mark.parametrize("samples", [1, 5, 70])
def test_the_mean_gradient_with_noise(samples):
    found = smooth_grad(square, X, 7, samples=samples, noise=0.1)
    draws = torch.stack(
        [
            torch.randn(2, generator=generator(fold_in(7, "noise", 0, number)), dtype=torch.float64)
            for number in range(samples)
        ]
    )
    spread = 0.1 * (X.amax(1) - X.amin(1))[:, None]
    torch.testing.assert_close(found.values, 2 * (X + spread * draws.mean(0)), rtol=0, atol=1e-12)
    assert torch.equal(smooth_grad(square, X, 7, noise=0.0).values, 2 * X)


@pytest.mark.parametrize("samples", [1, 6, 100])
def test_expected_gradients_of_a_linear_score_are_exact(samples):
    references = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, 2.0]], dtype=torch.float64)
    found = gradient_shap(lambda x: x @ W, X, references, 3, samples=samples)
    assert found.completeness.max() < 1e-12
    alone = gradient_shap(lambda x: x @ W, X, references[1:2], 3, samples=samples)
    torch.testing.assert_close(alone.values, (X - 1.0) * W, rtol=0, atol=1e-12)


def test_expected_gradients_come_to_the_integral():
    found = gradient_shap(square, X, torch.zeros(1, 2, dtype=torch.float64), 0, samples=4000)
    # the mean of 2 u x^2 with u uniform: x^2, with a standard deviation of x^2 / sqrt(3 n)
    assert bool(((found.values - X**2).abs() <= 5 * X**2 / (3 * 4000) ** 0.5).all())


@pytest.mark.parametrize("method", [smooth_grad, lambda s, x, key, **n: gradient_shap(s, x, X[:2], key, **n)])
def test_draws_depend_on_the_key_alone(method):
    before = torch.get_rng_state()
    first, again, other = (method(square, X, key, samples=5).values for key in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    alone = torch.cat([method(square, X[i : i + 1], 1, samples=5).values for i in range(3)])
    assert torch.equal(alone, first)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smooth_grad(square, X, 0, samples=0), "samples must be 1 or more"),
        (lambda: smooth_grad(square, X, 0, noise=-1.0), "noise must be 0 or more"),
        (lambda: gradient_shap(square, X, X[:, :1], 0), r"rows like those of the inputs \[3, 2\]"),
        (lambda: gradient_shap(square, X, X[:0], 0), "rows like those of the inputs"),
        (lambda: saliency(square, X, rows=-1), "rows, the number of inputs"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
