"""Rankings equal scikit-learn's, on random and on degenerate inputs, in ranges and all at once."""

import math
from typing import Any

import pytest
import sklearn.metrics as sk
import torch
import torchmetrics.functional as tm
from torch import Tensor

from functrain import metrics
from functrain.metrics import ranking

CLASSES = 4


def binary(rows: int, seed: int, *, ties: bool, weighted: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, generator=generator)
    targets = torch.randint(0, 2, (rows,), generator=generator)
    targets[:2] = torch.tensor([0, 1])[:rows]
    return (
        (scores * 2).round() if ties else scores,
        targets,
        torch.rand(rows, generator=generator) if weighted else None,
    )


BINARY = [
    *(
        binary(rows, rows, ties=ties, weighted=weighted)
        for rows in (2, 9, 300)
        for ties in (0, 1)
        for weighted in (0, 1)
    ),
    (torch.tensor([-1.0, 1.0]), torch.tensor([0, 1]), None),  # all right
    (torch.tensor([1.0, -1.0]), torch.tensor([0, 1]), None),  # all wrong
    (torch.zeros(5), torch.tensor([0, 1, 0, 1, 1]), None),  # one score only
    (torch.tensor([0.0, -0.0, 1.0]), torch.tensor([1, 0, 1]), None),  # the two zeros are one score
    (torch.tensor([math.inf, -math.inf, 0.0]), torch.tensor([1, 0, 1]), None),
    (torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0, 1, 1]), torch.tensor([0.0, 1.0, 1.0])),  # without the negative one
    (torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0, 1, 0]), torch.tensor([0.0, 1.0, 2.0])),
]


@pytest.mark.parametrize(("scores", "targets", "weight"), BINARY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore")
def test_a_ranking_is_scikit_learns(scores: Tensor, targets: Tensor, weight: Tensor | None, dtype: torch.dtype) -> None:
    scores, weight = scores.to(dtype), None if weight is None else weight.to(dtype)
    ranks = torch.unique(scores, return_inverse=True)[1]  # scikit-learn takes no infinite scores
    options = {} if weight is None else {"sample_weight": weight.double().numpy()}
    kept = targets if weight is None else targets[weight != 0]
    area = sk.roc_auc_score(targets, ranks, **options) if len(kept.unique()) == 2 else math.nan
    assert metrics.auroc()(scores, targets, weight).item() == pytest.approx(area, abs=1e-12, nan_ok=True)
    precision = sk.average_precision_score(targets, ranks, **options)
    assert metrics.auprc()(scores, targets, weight).item() == pytest.approx(precision, abs=1e-12)
    fpr, tpr, _ = sk.roc_curve(targets, ranks, drop_intermediate=False, **options)
    for most in (0.0, 0.05, 0.3, 1.0):
        wanted = tpr[fpr <= most].max() if not math.isnan(area) else math.nan
        found = metrics.recall_at_fpr(most)(scores, targets, weight).item()
        assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)
    for ours, theirs in ((metrics.f1, sk.f1_score), (metrics.precision, sk.precision_score)):
        wanted = theirs(targets, scores > 0, zero_division=0, **options)
        assert ours()(scores, targets, weight).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("targets", [torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)])
def test_a_ranking_of_one_class_is_not_defined(targets: Tensor) -> None:
    scores = torch.arange(4.0)
    assert metrics.auroc()(scores, targets).isnan()
    assert metrics.recall_at_fpr()(scores, targets).isnan()
    assert metrics.auprc()(scores, targets).item() == float(targets[0])  # as scikit-learn has it


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_the_ranking_of_several_classes_is_one_against_the_rest(average: Any) -> None:
    scores, targets = torch.randn(200, CLASSES, generator=torch.Generator().manual_seed(0)), torch.arange(200) % CLASSES
    probabilities = scores.double().softmax(1)
    wanted = sk.roc_auc_score(targets, probabilities, multi_class="ovr", average=average)
    assert metrics.auroc(average)(scores, targets).item() == pytest.approx(wanted, abs=1e-12)
    wanted = sk.average_precision_score(targets, probabilities, average=average)
    assert metrics.auprc(average)(scores, targets).item() == pytest.approx(wanted, abs=1e-12)
    theirs = tm.auroc(scores.softmax(1), targets, task="multiclass", num_classes=CLASSES, average=average)
    assert metrics.auroc(average)(scores, targets).item() == pytest.approx(theirs.item(), abs=1e-6)


def test_a_class_without_examples_has_no_part_in_the_mean() -> None:
    scores, targets = torch.randn(50, CLASSES, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 3
    found = metrics.auroc("none")(scores, targets)
    assert found["class"].isnan().tolist() == [False, False, False, True]
    assert found[""].item() == pytest.approx(found["class"][:3].mean().item())


@pytest.mark.parametrize("make", [metrics.auroc, metrics.auprc, lambda: metrics.recall_at_fpr(0.1)])
@pytest.mark.parametrize("scale", [1.0, 1e-40, 1e30])
def test_a_ranking_in_ranges_is_that_of_all_scores_at_once(make: Any, scale: float, monkeypatch: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randn(3000, generator=generator) * 9).round() * scale
    scores[::7], scores[::11], scores[::13], scores[::17] = 0.0, -0.0, torch.inf, -torch.inf
    targets = torch.randint(0, 2, (3000,), generator=generator)
    weights = torch.rand(3000, generator=generator)
    weights[::5] = 0.0
    scores[::10] = torch.nan  # where the weight is 0
    for weight in (weights, weights.ceil()):
        expected = make()(scores, targets, weight)
        for size in (1, 50, 700):
            monkeypatch.setattr(ranking, "RANGE", size)
            monkeypatch.setattr(ranking, "CHUNK", 64)
            torch.testing.assert_close(make()(scores, targets, weight), expected, rtol=1e-12, atol=0)
        monkeypatch.undo()
