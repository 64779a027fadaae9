"""Per-example losses against torch's own formulas."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from functrain.objectives import losses

SHAPES = [(5, 3), (2, 3, 4), (2, 3, 4, 5)]


def case(shape, ignore_index=-100):
    torch.manual_seed(0)
    logits = torch.randn(shape, dtype=torch.float64)
    targets = torch.randint(shape[1], (shape[0], *shape[2:]))
    targets.view(-1)[::4] = ignore_index
    return logits, targets


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignore_index", [-100, 1, 255])
def test_cross_entropy_has_torchs_values_and_counts_what_torch_counts(shape, label_smoothing, ignore_index):
    logits, targets = case(shape, ignore_index)
    values, weights = losses.cross_entropy(logits, targets, label_smoothing=label_smoothing, ignore_index=ignore_index)
    options = {"label_smoothing": label_smoothing, "ignore_index": ignore_index}
    torch.testing.assert_close(
        values * weights, F.cross_entropy(logits, targets, reduction="none", **options), rtol=1e-14, atol=1e-14
    )
    mean = (values * weights).sum() / weights.sum()
    torch.testing.assert_close(mean, F.cross_entropy(logits, targets, **options), rtol=1e-14, atol=1e-14)
    assert torch.equal(weights, (targets != ignore_index).double())


CLASS_WEIGHTS = [(1.0, 1.0, 1.0), (0.2, 3.0, 1.7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("class_weights", CLASS_WEIGHTS)
@pytest.mark.parametrize("ignore_index", [-100, 1])
def test_class_weights_have_torchs_weighted_mean(shape, label_smoothing, class_weights, ignore_index):
    logits, targets = case(shape, ignore_index)
    options = {"label_smoothing": label_smoothing, "ignore_index": ignore_index}
    result = losses.cross_entropy(logits, targets, class_weights=class_weights, **options)
    weight = torch.tensor(class_weights, dtype=torch.float64)
    summands = F.cross_entropy(logits, targets, weight, reduction="none", **options)
    torch.testing.assert_close(result.values * result.weights, summands, rtol=1e-13, atol=1e-14)
    assert torch.equal(result.weights, torch.where(targets == ignore_index, 0.0, weight[targets.clamp(min=0)]))
    total, weight_sum = result.sums()
    expected = F.cross_entropy(logits, targets, weight, **options)
    torch.testing.assert_close(total / weight_sum, expected, rtol=1e-13, atol=1e-14)


def test_class_weights_are_scikit_learns_sample_weights():
    logits, targets = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 3
    total, weight = losses.cross_entropy(logits, targets, class_weights=(0.2, 3.0, 1.7)).sums()
    samples = np.array([0.2, 3.0, 1.7])[targets.numpy()]
    expected = log_loss(targets.numpy(), logits.softmax(1).numpy(), sample_weight=samples)
    assert (total / weight).item() == pytest.approx(expected, rel=1e-12)


def test_a_class_of_weight_zero_does_not_count_and_a_label_out_of_range_shows_all_the_same():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 5])
    values, weights = losses.cross_entropy(logits, targets, class_weights=(0.0, 1.0, 2.0))
    assert weights.tolist() == [0.0, 1.0, 2.0, 1.0]
    assert values.isnan().tolist() == [False, False, False, True]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_focal_is_the_papers_formula_with_the_weights_of_cross_entropy(shape, gamma):
    logits, targets = case(shape)
    values, weights = losses.focal(logits, targets, gamma=gamma, class_weights=(0.2, 3.0, 1.7))
    p = logits.softmax(1).gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
    expected = torch.where(targets >= 0, -((1 - p) ** gamma) * p.log(), 0.0)
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(weights, losses.cross_entropy(logits, targets, class_weights=(0.2, 3.0, 1.7)).weights)


def test_focal_without_focus_is_cross_entropy():
    logits, targets = case((2, 3, 4))
    left, right = losses.focal(logits, targets, gamma=0.0), losses.cross_entropy(logits, targets)
    torch.testing.assert_close(left.values, right.values, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.25, 1.0, 2.0])
def test_focal_has_finite_gradients_where_a_probability_rounds_to_one_or_zero(gamma):
    for logits in (torch.tensor([[0.0, 500.0]]), torch.tensor([[500.0, 0.0]])):
        grad = torch.func.grad(lambda x: losses.focal(x, torch.tensor([1]), gamma=gamma).values.sum())(logits)
        assert grad.isfinite().all()


@pytest.mark.parametrize("bad", [-1, 3, -101, 2**40])
def test_a_label_out_of_range_makes_its_own_value_nan_and_no_other(bad):
    logits, targets = torch.randn(4, 3), torch.tensor([0, bad, 2, -100])
    values, weights = losses.cross_entropy(logits, targets)
    assert values.isnan().tolist() == [False, True, False, False]
    assert weights.tolist() == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_every_integer_type_of_labels_is_taken(dtype):
    logits = torch.randn(3, 4)
    values = losses.cross_entropy(logits, torch.tensor([0, 3, 1], dtype=dtype)).values
    assert torch.equal(values, F.cross_entropy(logits, torch.tensor([0, 3, 1]), reduction="none"))


@pytest.mark.parametrize(
    ("logits", "targets", "options", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2), {}, r"integer targets \[B, ...\]; got.*torch.float32"),
        (torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.int64), {}, r"targets \[2, 1\]"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64), {}, r"logits \[2\]"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), {"label_smoothing": 1.5}, "between 0 and 1, got 1.5"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, dtype=torch.int64),
            {"class_weights": (1.0, 2.0)},
            "has 2 numbers.*3 classes",
        ),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), {"class_weights": (1.0, 2.0, -1.0)}, "class 2 has -1.0"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, dtype=torch.int64),
            {"class_weights": (1.0, 2.0, 0.0), "label_smoothing": 0.1},
            "greater than 0 with label_smoothing",
        ),
    ],
)
def test_what_is_no_classification_is_refused(logits, targets, options, message):
    with pytest.raises(ValueError, match=message):
        losses.cross_entropy(logits, targets, **options)


def test_class_weights_are_numbers():
    with pytest.raises(TypeError, match=r"give its .tolist\(\)"):
        losses.cross_entropy(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), class_weights=torch.ones(3))


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (torch.zeros(2, 3), {"gamma": -1.0}, "gamma must be 0 or more, got -1.0"),
        (torch.zeros(2, 1), {}, "two classes or more, got one; of one logit, take binary_focal"),
    ],
)
def test_what_focal_cannot_do_is_refused(logits, options, message):
    with pytest.raises(ValueError, match=message):
        losses.focal(logits, torch.zeros(2, dtype=torch.int64), **options)


DIFFERENCES = [
    (losses.squared_error, F.mse_loss),
    (losses.absolute_error, F.l1_loss),
    (losses.huber, F.huber_loss),
    (functools.partial(losses.huber, delta=0.3), functools.partial(F.huber_loss, delta=0.3)),
    (losses.smooth_l1, F.smooth_l1_loss),
    (functools.partial(losses.smooth_l1, beta=2.5), functools.partial(F.smooth_l1_loss, beta=2.5)),
]


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3, 2)])
@pytest.mark.parametrize(("ours", "torchs"), DIFFERENCES)
def test_errors_average_to_torchs_mean(shape, ours, torchs):
    torch.manual_seed(0)
    predictions, targets = torch.randn(2, *shape, dtype=torch.float64)
    values, weights = ours(predictions, targets)
    assert values.shape == weights.shape == (6,)
    torch.testing.assert_close(values.mean(), torchs(predictions, targets), rtol=1e-14, atol=1e-14)
    assert weights.eq(1).all()


def test_smooth_l1_is_huber_over_beta():
    predictions, targets = torch.randn(2, 50, dtype=torch.float64)
    left = losses.smooth_l1(predictions, targets, beta=0.7).values
    right = losses.huber(predictions, targets, delta=0.7).values / 0.7
    torch.testing.assert_close(left, right, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("loss", "options"), [(losses.huber, {"delta": 0.0}), (losses.smooth_l1, {"beta": -1.0})])
def test_a_corner_that_is_not_positive_is_refused(loss, options):
    with pytest.raises(ValueError, match="must be greater than 0 and finite"):
        loss(torch.zeros(2), torch.zeros(2), **options)


@pytest.mark.parametrize("error", losses.VALUES.values(), ids=losses.VALUES)
def test_a_column_of_predictions_meets_flat_targets_and_nothing_else_is_broadcast(error):
    predictions, targets = torch.randn(4, 1), torch.randn(4)
    assert torch.equal(error(predictions, targets).values, error(predictions[:, 0], targets).values)
    for shape in ((1,), (4, 2), (1, 4), (4, 1, 1)):
        with pytest.raises(ValueError, match="must have one shape"):
            error(predictions, torch.zeros(shape))
