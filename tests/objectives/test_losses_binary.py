"""Losses of yes or no against torch's and the paper's formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from functrain.objectives import losses


def case(shape, soft=False):
    logits = 3 * torch.randn(shape, dtype=torch.float64)
    return logits, torch.rand(shape, dtype=torch.float64) if soft else torch.randint(2, shape)


@pytest.mark.parametrize("shape", [(6,), (6, 3), (2, 4, 3)])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("pos_weight", [None, 2.5, (0.5, 1.0, 4.0)])
def test_binary_cross_entropy_has_torchs_values_and_mean(shape, soft, pos_weight):
    if isinstance(pos_weight, tuple) and shape[-1] != 3:
        shape = (6, 3)
    logits, targets = case(shape, soft)
    result = losses.binary_cross_entropy(logits, targets, pos_weight=pos_weight)
    factor = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(logits, targets.double(), pos_weight=factor, reduction="none")
    torch.testing.assert_close(result.values, expected, rtol=1e-14, atol=0)
    total, weight = result.sums()
    torch.testing.assert_close(total / weight, expected.mean(), rtol=1e-14, atol=0)


def test_binary_cross_entropy_is_scikit_learns_log_loss():
    logits, targets = case((40,))
    total, weight = losses.binary_cross_entropy(logits, targets).sums()
    assert (total / weight).item() == pytest.approx(log_loss(targets.numpy(), logits.sigmoid().numpy()), rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0])
def test_binary_focal_is_the_papers_formula(gamma, alpha):
    logits, targets = case((7, 3))
    p = logits.sigmoid().numpy()
    y = targets.numpy()
    p_t = np.where(y == 1, p, 1 - p)
    alpha_t = 1.0 if alpha is None else np.where(y == 1, alpha, 1 - alpha)
    expected = torch.from_numpy(-alpha_t * (1 - p_t) ** gamma * np.log(p_t))
    values = losses.binary_focal(logits, targets, gamma=gamma, alpha=alpha).values
    torch.testing.assert_close(values, expected, rtol=1e-11, atol=1e-15)


def test_binary_focal_of_a_probability_is_the_expectation_over_the_label():
    logits, targets = case((9,), soft=True)
    one, zero = (losses.binary_focal(logits, torch.full_like(targets, y)).values for y in (1.0, 0.0))
    torch.testing.assert_close(losses.binary_focal(logits, targets).values, targets * one + (1 - targets) * zero)


@pytest.mark.parametrize("gamma", [0.25, 1.0, 2.0])
def test_binary_focal_has_finite_gradients_where_a_probability_rounds_to_one_or_zero(gamma):
    logits, targets = torch.tensor([500.0, -500.0, 500.0, -500.0]), torch.tensor([1, 1, 0, 0])
    grad = torch.func.grad(lambda x: losses.binary_focal(x, targets, gamma=gamma).values.sum())(logits)
    assert grad.isfinite().all()


@pytest.mark.parametrize("name", losses.BINARY)
@pytest.mark.parametrize("shape", [(4,), (4, 5, 3)])
def test_a_single_channel_meets_labels_without_one_and_nothing_else_is_broadcast(name, shape):
    logits, targets = case(shape)
    loss = losses.BINARY[name]
    assert torch.equal(loss(logits.unsqueeze(1), targets).values, loss(logits, targets).values)
    for other in ((1, *shape[1:]), (*shape, 2), shape[1:]):
        with pytest.raises(ValueError, match="logits and targets of one shape"):
            loss(logits, torch.zeros(other))


@pytest.mark.parametrize("name", losses.BINARY)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_labels_of_every_type_are_taken_and_an_unsigned_one_is_not_the_ignored_index(name, dtype):
    logits, targets = case((4, 3))
    loss = losses.BINARY[name]
    assert torch.equal(loss(logits, targets.to(dtype)).values, loss(logits, targets).values)
    assert loss(logits, torch.full((4, 3), 156, dtype=torch.uint8)).values.isnan().all()


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (losses.binary_cross_entropy, {"pos_weight": (1.0, 2.0)}, "has 2 numbers"),
        (losses.binary_cross_entropy, {"pos_weight": 0.0}, "greater than 0 and finite, got 0.0"),
        (losses.binary_focal, {"gamma": -1.0}, "gamma must be 0 or more"),
        (losses.binary_focal, {"alpha": 1.5}, "alpha must be between 0 and 1, or None for no weights; got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(*case((4, 3)), **options)
