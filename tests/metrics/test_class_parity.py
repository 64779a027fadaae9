"""Metrics of classes equal scikit-learn's and torchmetrics', on random and on degenerate inputs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
import torchmetrics.functional as tm
from torch import Tensor

from functrain import metrics

CLASSES = 4
LABELS = list(range(CLASSES))


class Case(NamedTuple):
    """Scores of a model, and targets."""

    name: str
    scores: Tensor
    targets: Tensor
    weight: Tensor | None = None

    @property
    def sample_weight(self) -> Any:
        return None if self.weight is None else self.weight.double().numpy()


def scores_of(classes: list[int]) -> Tensor:
    """Logits whose largest is that of these classes."""
    return torch.nn.functional.one_hot(torch.tensor(classes), CLASSES).float() * 2


def randomly(rows: int, seed: int, *, weighted: bool) -> Case:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(rows, generator=generator) if weighted else None
    targets = torch.randint(0, CLASSES, (rows,), generator=generator)
    return Case(f"random-{rows}-{weighted}", torch.randn(rows, CLASSES, generator=generator), targets, weight)


CLASS_CASES = [
    *(randomly(rows, seed, weighted=seed % 2 == 1) for seed, rows in enumerate((1, 2, 17, 17, 400, 400))),
    Case("one class only", scores_of([1, 1, 1]), torch.tensor([1, 1, 1])),
    Case("one class in the targets", scores_of([0, 1, 2]), torch.tensor([1, 1, 1])),
    Case("one class predicted", scores_of([2, 2, 2, 2]), torch.tensor([0, 1, 2, 3])),
    Case("a class never predicted nor there", scores_of([0, 1, 0]), torch.tensor([0, 1, 1])),
    Case("a class predicted and not there", scores_of([0, 3, 1]), torch.tensor([0, 1, 1])),
    Case("a class there and not predicted", scores_of([0, 1, 1]), torch.tensor([0, 1, 3])),
    Case("all wrong", scores_of([1, 2, 3, 0]), torch.tensor([0, 1, 2, 3])),
    Case("all right", scores_of([0, 1, 2, 3]), torch.tensor([0, 1, 2, 3])),
    Case("one example, right", scores_of([2]), torch.tensor([2])),
    Case("one example, wrong", scores_of([2]), torch.tensor([3])),
    Case("ties in all scores", torch.zeros(4, CLASSES), torch.tensor([0, 1, 2, 3])),
    Case("zero weights", scores_of([0, 1, 2, 3]), torch.tensor([0, 2, 2, 1]), torch.tensor([1.0, 0.0, 2.0, 0.0])),
    Case("one example counts", scores_of([0, 1]), torch.tensor([0, 0]), torch.tensor([1.0, 0.0])),
    Case("huge scores", scores_of([0, 1, 2]) * 1e30, torch.tensor([0, 2, 2])),
    Case("infinite scores", torch.tensor([[0.0, math.inf, -math.inf, 1.0]]), torch.tensor([1])),
]


def averages(value: metrics.Metric, reference: Callable[..., Any], case: Case) -> None:
    """One metric against a function of scikit-learn with an `average`."""
    predicted = case.scores.argmax(1)
    there = sorted({*predicted.tolist(), *case.targets.tolist()})
    if case.weight is not None:
        kept = case.weight != 0
        there = sorted({*predicted[kept].tolist(), *case.targets[kept].tolist()})
    found = value(case.scores, case.targets, case.weight)
    name = value.value.average  # type: ignore[attr-defined]
    wanted = reference(
        case.targets,
        predicted,
        average=None if name == "none" else name,
        labels=LABELS if name == "none" else there,
        sample_weight=case.sample_weight,
        zero_division=0,
    )
    if name == "none":
        absent = [label not in there for label in LABELS]
        wanted = np.where(absent, np.nan, wanted)
        found = found["class"]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "none"])
@pytest.mark.parametrize("case", CLASS_CASES, ids=lambda case: case.name)
def test_class_metrics_are_those_of_scikit_learn(case: Case, average: Any) -> None:
    averages(metrics.precision(average), sk.precision_score, case)
    averages(metrics.recall(average), sk.recall_score, case)
    averages(metrics.f1(average), sk.f1_score, case)
    averages(metrics.dice(average), sk.f1_score, case)
    averages(metrics.iou(average), sk.jaccard_score, case)


@pytest.mark.parametrize("case", CLASS_CASES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore")
def test_metrics_of_all_classes_are_those_of_scikit_learn(case: Case) -> None:
    predicted, weight = case.scores.argmax(1), case.sample_weight

    def check(metric: metrics.Metric, wanted: Any) -> None:
        found = metric(case.scores, case.targets, case.weight)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12, atol=1e-12, err_msg=metric.name)

    check(metrics.accuracy(), sk.accuracy_score(case.targets, predicted, sample_weight=weight))
    check(metrics.balanced_accuracy(), _balanced(case))
    check(metrics.matthews_corrcoef(), sk.matthews_corrcoef(case.targets, predicted, sample_weight=weight))
    for weights in (None, "linear", "quadratic"):
        kappa = sk.cohen_kappa_score(case.targets, predicted, labels=LABELS, weights=weights, sample_weight=weight)
        check(metrics.cohen_kappa(weights), kappa)  # type: ignore[arg-type]
    for normalize in (None, "true", "pred", "all"):
        matrix = sk.confusion_matrix(case.targets, predicted, labels=LABELS, normalize=normalize, sample_weight=weight)
        check(metrics.confusion_matrix(normalize), matrix)  # type: ignore[arg-type]


def _balanced(case: Case) -> float:
    kept = slice(None) if case.weight is None else case.weight != 0  # scikit-learn divides by a class's weight of 0
    weight = None if case.sample_weight is None else case.sample_weight[kept.numpy()]
    return float(sk.balanced_accuracy_score(case.targets[kept], case.scores.argmax(1)[kept], sample_weight=weight))


@pytest.mark.parametrize("case", CLASS_CASES[:6], ids=lambda case: case.name)
def test_top_k_accuracy_is_scikit_learns(case: Case) -> None:
    wanted = sk.top_k_accuracy_score(case.targets, case.scores, k=2, labels=LABELS, sample_weight=case.sample_weight)
    assert metrics.accuracy(top_k=2)(case.scores, case.targets, case.weight).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("case", [case for case in CLASS_CASES if case.weight is None], ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore")
def test_class_metrics_are_those_of_torchmetrics(case: Case) -> None:
    options = {"task": "multiclass", "num_classes": CLASSES}
    for average in ("macro", "micro", "weighted"):
        for ours, theirs in (
            (metrics.precision, tm.precision),
            (metrics.recall, tm.recall),
            (metrics.f1, tm.f1_score),
            (metrics.specificity, tm.specificity),
        ):
            wanted = theirs(case.scores, case.targets, average=average, **options)
            found = ours(average)(case.scores, case.targets)  # type: ignore[arg-type]
            assert found.item() == pytest.approx(wanted.item(), abs=1e-6), (ours, average)
    assert torch.equal(
        metrics.confusion_matrix()(case.scores, case.targets).long(),
        tm.confusion_matrix(case.scores, case.targets, **options),
    )


def multilabel(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=generator), torch.randint(0, 2, (rows, 3), generator=generator)


MULTILABEL = [
    multilabel(1, 0),
    multilabel(40, 1),
    (torch.tensor([[1.0, -1.0, -1.0], [1.0, 1.0, -1.0]]), torch.tensor([[1, 0, 0], [0, 1, 0]])),  # a label never there
    (torch.full((3, 3), -1.0), torch.zeros(3, 3, dtype=torch.int64)),
    (torch.full((3, 3), 1.0), torch.ones(3, 3, dtype=torch.int64)),
    (torch.full((3, 3), 1.0), torch.zeros(3, 3, dtype=torch.int64)),
]


@pytest.mark.parametrize(("scores", "targets"), MULTILABEL)
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", None])
def test_several_labels_are_as_scikit_learn_has_them(scores: Tensor, targets: Tensor, average: Any) -> None:
    predicted = (scores > 0).long()
    for ours, theirs in (
        (metrics.precision, sk.precision_score),
        (metrics.recall, sk.recall_score),
        (metrics.f1, sk.f1_score),
        (metrics.iou, sk.jaccard_score),
    ):
        found = ours(average or "none")(scores, targets)
        wanted = theirs(targets, predicted, average=average, zero_division=0)
        np.testing.assert_allclose((found["class"] if average is None else found).numpy(), wanted, atol=1e-12)
    matrices = sk.multilabel_confusion_matrix(targets, predicted)
    np.testing.assert_array_equal(metrics.confusion_matrix()(scores, targets).numpy(), matrices)
