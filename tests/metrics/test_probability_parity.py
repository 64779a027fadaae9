"""Metrics of probabilities equal torchmetrics' and scikit-learn's."""

from typing import Any

import pytest
import sklearn.metrics as sk
import torch
import torchmetrics.functional as tm

from functrain import metrics

CLASSES = 4


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_the_calibration_error_is_that_of_torchmetrics(norm: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(300, CLASSES, generator=generator), torch.randint(0, CLASSES, (300,))
    wanted = tm.calibration_error(
        scores.softmax(1), targets, task="multiclass", num_classes=CLASSES, n_bins=10, norm=norm
    )
    assert metrics.calibration_error(10, norm)(scores, targets).item() == pytest.approx(wanted.item(), abs=1e-6)
    scores, targets = torch.randn(300, generator=generator), torch.randint(0, 2, (300,), generator=generator)
    wanted = tm.calibration_error(scores.sigmoid(), targets, task="binary", n_bins=10, norm=norm)
    assert metrics.calibration_error(10, norm)(scores, targets).item() == pytest.approx(wanted.item(), abs=1e-6)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 0.5])
def test_confidences_at_both_ends_have_a_bin(confidence: float) -> None:
    found = metrics.calibration_error(4, from_logits=False)(torch.full((6,), confidence), torch.ones(6))
    assert found.item() == 1.0 - confidence


def test_brier_and_perplexity_are_the_references() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, targets = torch.randn(100, CLASSES, generator=generator), torch.arange(100) % CLASSES
    wanted = sk.brier_score_loss(targets, scores.double().softmax(1), scale_by_half=False)
    assert metrics.brier()(scores, targets).item() == pytest.approx(wanted, abs=1e-12)
    binary_scores, yes = torch.randn(50, generator=generator), torch.arange(50) % 2
    wanted = sk.brier_score_loss(yes, binary_scores.double().sigmoid())
    assert metrics.brier()(binary_scores, yes).item() == pytest.approx(wanted, abs=1e-12)
    tokens = torch.randint(0, CLASSES, (3, 7), generator=generator)
    logits = torch.randn(3, 7, CLASSES, generator=generator)
    wanted = tm.text.perplexity(logits, tokens)
    assert metrics.perplexity()(logits.movedim(2, 1), tokens).item() == pytest.approx(wanted.item(), rel=1e-6)
