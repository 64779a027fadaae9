"""Losses of overlap against scikit-learn's scores and the written-out formula."""

import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from functrain.objectives import losses

SHARP = 1000.0  # logits that make probabilities exactly 0 and 1
SCORES = [(losses.dice, f1_score), (losses.iou, jaccard_score)]
BINARY_SCORES = [(losses.binary_dice, f1_score), (losses.binary_iou, jaccard_score)]


@pytest.mark.parametrize(("loss", "score"), SCORES)
def test_sharp_predictions_have_one_minus_scikit_learns_macro_score_of_each_example(loss, score):
    predicted, targets = torch.randint(3, (2, 4, 5, 6))
    logits = SHARP * torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1).double()
    values = loss(logits, targets, smooth=1e-12).values
    expected = [1 - score(t.flatten(), p.flatten(), average="macro") for t, p in zip(targets, predicted)]
    assert values.tolist() == pytest.approx(expected, abs=1e-11)  # of a smooth term of 1e-12 on sums of 1 or more


@pytest.mark.parametrize(("loss", "score"), BINARY_SCORES)
def test_sharp_masks_have_one_minus_scikit_learns_score_of_each_example(loss, score):
    predicted, targets = torch.randint(2, (2, 4, 5, 6))
    values = loss(SHARP * (2.0 * predicted.double() - 1), targets, smooth=1e-12).values
    expected = [1 - score(t.flatten(), p.flatten()) for t, p in zip(targets, predicted)]
    assert values.tolist() == pytest.approx(expected, abs=1e-11)


def written_out(p, t, mask, smooth, iou):
    """The formula, example by example and class by class, `[B, C, N]` and mask `[B, N]`."""
    rows = []
    for b in range(len(p)):
        terms = []
        for c in range(p.shape[1]):
            pc, tc = p[b, c][mask[b]], t[b, c][mask[b]]
            both, size = (pc * tc).sum(), pc.sum() + tc.sum()
            terms.append((both + smooth) / (size - both + smooth) if iou else (2 * both + smooth) / (size + smooth))
        rows.append(1 - torch.stack(terms).mean())
    return torch.stack(rows)


@pytest.mark.parametrize("smooth", [1e-5, 1.0])
@pytest.mark.parametrize("iou", [False, True])
def test_soft_predictions_have_the_written_out_formula_over_the_positions_that_count(smooth, iou):
    logits, targets = torch.randn(3, 4, 5, 2, dtype=torch.float64), torch.randint(4, (3, 5, 2))
    targets[0, 1:3] = 255
    loss = losses.iou if iou else losses.dice
    values, weights = loss(logits, targets, smooth=smooth, ignore_index=255)
    truth = torch.nn.functional.one_hot(targets.where(targets != 255, 0), 4).movedim(-1, 1).double()
    expected = written_out(logits.softmax(1).flatten(2), truth.flatten(2), (targets != 255).flatten(1), smooth, iou)
    torch.testing.assert_close(values, expected, rtol=1e-13, atol=1e-14)
    assert weights.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("iou", [False, True])
def test_soft_masks_have_the_written_out_formula(iou):
    logits, targets = torch.randn(3, 5, 2, dtype=torch.float64), torch.rand(3, 5, 2, dtype=torch.float64)
    loss = losses.binary_iou if iou else losses.binary_dice
    everywhere = torch.ones(3, 10, dtype=torch.bool)
    p, t = logits.sigmoid().flatten(1).unsqueeze(1), targets.flatten(1).unsqueeze(1)
    torch.testing.assert_close(loss(logits, targets).values, written_out(p, t, everywhere, 1.0, iou))


def test_an_absent_class_that_is_not_predicted_costs_nothing_and_a_perfect_region_neither():
    targets = torch.zeros(2, 3, 3, dtype=torch.int64)
    logits = SHARP * torch.nn.functional.one_hot(targets, 4).movedim(-1, 1).double()
    for loss in (losses.dice, losses.iou):
        assert loss(logits, targets).values.tolist() == [0.0, 0.0]


def test_an_example_all_of_whose_positions_are_ignored_has_no_weight():
    targets = torch.tensor([[-100, -100], [0, -100]])
    for loss in (losses.dice, losses.iou):
        assert loss(torch.zeros(2, 3, 2), targets).weights.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("smooth", [0.0, -1.0])
def test_without_a_smooth_term_it_is_refused(smooth):
    with pytest.raises(ValueError, match="smooth must be greater than 0"):
        losses.dice(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.int64), smooth=smooth)


def test_classes_without_positions_are_taken():
    values = losses.dice(torch.zeros(2, 4), torch.tensor([0, 3])).values
    assert values.shape == (2,)
