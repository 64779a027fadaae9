"""Values equal scikit-learn's and torchmetrics', on random and on degenerate inputs."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
import torchmetrics.functional as tm
from scipy import spatial, stats
from torch import Tensor
from torchmetrics.functional.segmentation import hausdorff_distance as tm_hausdorff

from functrain import metrics
from functrain.errors import MetricError
from functrain.metrics import ranking
from functrain.metrics.surfaces import outline

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


REGRESSION = [
    (torch.randn(1, generator=torch.Generator().manual_seed(0)), torch.randn(1)),
    (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])),
    (torch.randn(60, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 60)),
    (torch.zeros(4), torch.ones(4)),  # both constant
    (torch.ones(4) * 0.1, torch.ones(4) * 0.1),  # met exactly, with a mean that is rounded
    (torch.linspace(0, 1, 5), torch.ones(5)),  # constant targets
    (torch.ones(5), torch.linspace(0, 1, 5)),  # constant predictions
    (torch.linspace(0, 1, 5), torch.linspace(0, 1, 5)),
    (torch.linspace(0, 1, 5) + 1e6, torch.linspace(0, 1, 5) + 1e6),  # a large mean
]


@pytest.mark.parametrize(("predictions", "targets"), REGRESSION)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_metrics_of_values_are_those_of_scikit_learn(predictions: Tensor, targets: Tensor, weighted: bool) -> None:
    weight = torch.rand(len(targets), generator=torch.Generator().manual_seed(2)) if weighted else None
    options = {} if weight is None else {"sample_weight": weight.double().numpy()}
    predictions, targets = predictions.double(), targets.double()
    for ours, theirs in (
        (metrics.mae, sk.mean_absolute_error),
        (metrics.mse, sk.mean_squared_error),
        (metrics.rmse, sk.root_mean_squared_error),
        (metrics.r2, sk.r2_score),
    ):
        found, wanted = ours()(predictions, targets, weight).item(), theirs(targets, predictions, **options)
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12, nan_ok=True), ours
    if weight is None and len(targets) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pearson, spearman = stats.pearsonr(predictions, targets), stats.spearmanr(predictions, targets)
        assert metrics.pearson()(predictions, targets).item() == pytest.approx(pearson.statistic, abs=1e-9, nan_ok=True)
        found = metrics.spearman()(predictions, targets).item()
        assert found == pytest.approx(spearman.statistic, abs=1e-12, nan_ok=True)


def test_several_values_an_example_are_averaged_as_scikit_learn_does() -> None:
    generator = torch.Generator().manual_seed(0)
    predictions, targets = (torch.randn(30, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    targets[:, 0] *= 10
    assert metrics.rmse()(predictions, targets).item() == pytest.approx(
        sk.root_mean_squared_error(targets, predictions)
    )
    for name in ("uniform_average", "variance_weighted"):
        wanted = sk.r2_score(targets, predictions, multioutput=name)
        assert metrics.r2(name)(predictions, targets).item() == pytest.approx(wanted)  # type: ignore[arg-type]
    np.testing.assert_allclose(
        metrics.r2("raw_values")(predictions, targets)["value"].numpy(),
        sk.r2_score(targets, predictions, multioutput="raw_values"),
    )


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


def blobs(seed: int) -> Tensor:
    """Class numbers `[3, 9, 12]` of 3 classes, all of which are in each image."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.nn.functional.interpolate(torch.rand(3, 1, 3, 4, generator=generator), size=(9, 12))[:, 0]
    found = (classes * 3).long()
    found[:, 0, :3] = torch.arange(3)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_the_hausdorff_distance_is_that_of_the_outlines(seed: int, spacing: tuple[float, float]) -> None:
    predicted, truth = blobs(seed), blobs(seed + 10)
    scores = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1).float()
    wanted = torch.zeros(3, 3, dtype=torch.float64)
    scale = torch.tensor(spacing, dtype=torch.float64)
    for image in range(3):
        for label in range(3):
            ends = [outline((each[image] == label)[None])[0].nonzero() * scale for each in (predicted, truth)]
            wanted[image, label] = max(spatial.distance.directed_hausdorff(*pair)[0] for pair in (ends, ends[::-1]))
    found = metrics.hausdorff_distance("none", include_background=True, spacing=spacing)(scores, truth)
    torch.testing.assert_close(found["class"], wanted.mean(0), rtol=1e-12, atol=1e-12)
    mean = metrics.hausdorff_distance(spacing=spacing)(scores, truth)
    assert mean.item() == pytest.approx(wanted[:, 1:].mean().item())
    if spacing == (1.0, 1.0):
        masks = [torch.nn.functional.one_hot(each, 3).movedim(-1, 1).bool() for each in (predicted, truth)]
        # torchmetrics' own transform mixes rows and columns of images that are not square: compare square ones.
        square = [torch.nn.functional.pad(each, (0, 0, 0, 3)) for each in masks]
        theirs = tm_hausdorff(*square, num_classes=3, include_background=True)
        torch.testing.assert_close(theirs.double().mean(0), found["class"], rtol=1e-6, atol=1e-6)


def test_empty_regions_have_a_convention() -> None:
    nothing, corner = torch.full((1, 4, 5), -1.0), torch.zeros(1, 4, 5, dtype=torch.int64)
    corner[0, 0, 0] = 1
    assert metrics.hausdorff_distance()(nothing, corner).item() == 5.0  # the diagonal
    assert metrics.hausdorff_distance()(nothing, torch.zeros_like(corner)).isnan()
    both = metrics.hausdorff_distance()(torch.cat([nothing, corner * 2.0 - 1]), torch.cat([corner, corner]))
    assert both.item() == 2.5


@pytest.mark.parametrize("name", sorted(metrics.REGISTRY))
def test_nan_in_the_predictions_is_refused_by_name(name: str) -> None:
    metric = metrics.REGISTRY[name]()
    values = name in ("mae", "mse", "rmse", "r2", "pearson", "spearman")
    predictions = torch.zeros(3) if values else torch.zeros(3, 2, 4, 4) if "hausdorff" in name else torch.zeros(3, 2)
    targets = torch.zeros(3) if values else torch.zeros(3, *predictions.shape[2:], dtype=torch.int64)
    predictions[1] = math.nan
    if names := metric.statistic.outputs:
        predictions = dict.fromkeys(names, predictions)
    with pytest.raises(MetricError, match=rf"{name} found NaN in the predictions"):
        metric(predictions, targets)
    weight = torch.tensor([1.0, 0.0, 1.0])
    metric(predictions, targets, weight)  # an example that does not count is not looked at


@pytest.mark.parametrize("label", [-1, 2, 7])
def test_a_target_that_is_no_label_is_refused(label: int) -> None:
    with pytest.raises(MetricError, match=r"accuracy found a target that is no label \(1 times\)"):
        metrics.accuracy()(torch.zeros(2, 2), torch.tensor([0, label]))
    with pytest.raises(MetricError, match="a target that is no label"):
        metrics.f1()(torch.zeros(2), torch.tensor([0, label]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.f1("mean"), "average must be one of macro, micro, weighted, none; got 'mean'"),  # type: ignore[arg-type]
        (lambda: metrics.accuracy(top_k=0), "top_k must be a whole number"),
        (lambda: metrics.accuracy(top_k=9)(torch.zeros(1, 2), torch.tensor([0])), "top_k must be 1 to 2"),
        (lambda: metrics.recall_at_fpr(2), "fpr must be a false positive rate"),
        (lambda: metrics.f1(threshold=3), "threshold must be a probability"),
        (lambda: metrics.f1()(torch.zeros(2, 3), torch.zeros(2)), "targets of a multiclass metric are class numbers"),
        (lambda: metrics.f1()(torch.zeros(2, 3), torch.zeros(3).long()), r"predictions \[B, C, ...\]"),
        (lambda: metrics.f1()(torch.zeros(3).long(), torch.zeros(3).long()), "needs num_classes"),
        (
            lambda: metrics.auroc()(torch.zeros(2, 3), torch.zeros(2).long(), torch.ones(3)),
            "one number for each example",
        ),
        (lambda: metrics.mae()(torch.zeros(2, 3), torch.zeros(2)), "predictions and targets of one shape"),
        (lambda: metrics.measures(["f2"]), "there is no metric 'f2'; known: accuracy, attention_entropy"),
        (lambda: metrics.measures(["f1", "f1"]), "two metrics have the name f1"),
        (lambda: metrics.measures([{"name": "f1", "beta": 2}]), "metric 'f1': .*beta"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


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
