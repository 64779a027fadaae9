"""Per-example losses against torch's own formulas."""

import pytest
import torch
import torch.nn.functional as F

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
    ],
)
def test_what_is_no_classification_is_refused(logits, targets, options, message):
    with pytest.raises(ValueError, match=message):
        losses.cross_entropy(logits, targets, **options)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3, 2)])
@pytest.mark.parametrize(("ours", "torchs"), [(losses.squared_error, F.mse_loss), (losses.absolute_error, F.l1_loss)])
def test_errors_average_to_torchs_mean(shape, ours, torchs):
    torch.manual_seed(0)
    predictions, targets = torch.randn(2, *shape, dtype=torch.float64)
    values, weights = ours(predictions, targets)
    assert values.shape == weights.shape == (6,)
    torch.testing.assert_close(values.mean(), torchs(predictions, targets), rtol=1e-14, atol=1e-14)
    assert weights.eq(1).all()


@pytest.mark.parametrize("error", [losses.squared_error, losses.absolute_error])
def test_a_column_of_predictions_meets_flat_targets_and_nothing_else_is_broadcast(error):
    predictions, targets = torch.randn(4, 1), torch.randn(4)
    assert torch.equal(error(predictions, targets).values, error(predictions[:, 0], targets).values)
    for shape in ((1,), (4, 2), (1, 4), (4, 1, 1)):
        with pytest.raises(ValueError, match="must have one shape"):
            error(predictions, torch.zeros(shape))
