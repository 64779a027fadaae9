"""Soft targets: the loss is linear in them, hard ones are the corners, and wrong ones are refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.data.transforms import CutMix, MixUp
from functrain.objectives.judged import judged
from functrain.objectives.losses import cross_entropy

LOGITS = torch.randn(6, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
HARD = torch.arange(18).view(6, 3) % 4


def shares(hard=HARD):
    return F.one_hot(hard, 4).movedim(-1, 1).double()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", [None, (1.0, 2.0, 0.5, 3.0)])
def test_shares_of_one_class_give_the_loss_of_that_class(smoothing, class_weights):
    options = {"label_smoothing": smoothing}
    soft = cross_entropy(LOGITS, shares(), **options)
    hard = cross_entropy(LOGITS, HARD, **options)
    torch.testing.assert_close(soft.values, hard.values, rtol=1e-12, atol=1e-12)
    assert torch.equal(soft.weights, hard.weights)
    if class_weights is not None and not smoothing:
        soft, hard = (cross_entropy(LOGITS, t, class_weights=class_weights) for t in (shares(), HARD))
        torch.testing.assert_close(soft.values, hard.values, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(soft.weights, hard.weights, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_values_are_torchs(smoothing):
    targets = torch.rand(6, 4, 3, dtype=torch.float64).softmax(1)
    expected = F.cross_entropy(LOGITS, targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(
        cross_entropy(LOGITS, targets, label_smoothing=smoothing).values, expected, rtol=1e-12, atol=1e-12
    )


def test_shares_that_are_all_0_count_nothing_and_masked_logits_of_no_share_cost_nothing():
    targets = shares()
    targets[0] = 0
    result = cross_entropy(LOGITS, targets)
    assert not result.weights[0].any()
    assert not result.values[0].any()
    logits = torch.tensor([[0.0, float("-inf")]], requires_grad=True)
    value = cross_entropy(logits, torch.tensor([[1.0, 0.0]])).values.sum()
    (gradient,) = torch.autograd.grad(value, logits)
    assert value == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("bad", [-0.1, 0.9, float("nan")])
def test_what_is_no_share_shows(bad):
    targets = torch.tensor([[0.5, bad]])
    assert cross_entropy(torch.zeros(1, 2), targets).values.isnan().all()


def test_classification_trains_on_mixed_batches_and_measures_the_greatest_share():
    state = ft.init_state(nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1))
    targets = torch.tensor([[0.8, 0.2, 0.0], [0.0, 0.4, 0.6], [0.0, 0.0, 0.0]])
    _, metrics = ft.train_step(state, (torch.zeros(3, 2), targets))
    assert metrics["weight_sum"] == 2
    guess = int(nn.functional.linear(torch.zeros(2), state.params["weight"], state.params["bias"]).argmax())
    assert metrics["accuracy"] == [0.5, 0.0, 0.5][guess]


def test_soft_tokens_have_their_classes_last():
    objective = ft.language_modelling()
    logits = torch.randn(2, 4, 4, dtype=torch.float64)  # as many positions as tokens: only the order tells them apart
    hard = torch.tensor([[0, 1, 2, 3], [3, 3, 1, 0]])
    soft = F.one_hot(hard, 4).double()
    first, second = objective(nn.Identity(), (logits, hard)), objective(nn.Identity(), (logits, soft))
    torch.testing.assert_close(first.total, second.total, rtol=1e-12, atol=1e-12)
    assert first.totals().means()["accuracy"] == second.totals().means()["accuracy"]


@pytest.mark.parametrize("mixing", [MixUp(classes=4), CutMix(classes=4)])
def test_metrics_of_mixed_batches_count_the_class_with_the_greatest_share(mixing):
    images, labels = torch.rand(64, 1, 4, 4), torch.arange(64) % 4
    labels[5] = -100
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1), metrics=["f1", "recall"])
    inputs, shares = mixing((images, labels), 3)
    likeliest = torch.where(shares.sum(1) > 0, shares.argmax(1), -100)
    assert (shares.max(1).values < 1).any()
    _, soft = ft.train_step(state, (inputs, shares))
    _, hard = ft.train_step(state, (inputs, likeliest))
    assert soft["loss"] != hard["loss"]
    for name in ("accuracy", "f1", "recall"):
        assert torch.equal(soft[name], hard[name]), name


def test_metrics_of_soft_tokens_and_of_a_weighted_sum_count_the_likeliest_class():
    logits = LOGITS
    soft = LOGITS.flip(0).softmax(1)
    pixels = judged(ft.segmentation(), logits, (None, soft))
    assert torch.equal(pixels.targets, soft.argmax(1))
    tokens = judged(ft.language_modelling(next_token=False), logits.movedim(1, -1), (None, soft.movedim(1, -1)))
    assert torch.equal(tokens.targets, soft.argmax(1))
    summed = judged(ft.weighted_sum({"main": ft.term("cross_entropy", target="y")}), logits, (None, {"y": soft}))
    assert torch.equal(summed.targets, soft.argmax(1))
    several = judged(ft.binary_classification(), logits, (None, soft))
    assert torch.equal(several.targets, soft)
