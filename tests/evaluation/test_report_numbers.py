"""Numbers of reports beside those of scikit-learn."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

import functrain as ft
from functrain.evaluation import rankings
from functrain.evaluation.reports.binary import BinaryClassification
from functrain.evaluation.reports.classification import Classification
from functrain.evaluation.reports.language import LanguageModelling
from functrain.evaluation.reports.regression import Regression
from functrain.evaluation.reports.segmentation import Segmentation
from functrain.foundation.errors import DataError

CLOSE = {"rel": 1e-9, "abs": 1e-12}  # float64, some thousand additions


def numbers(collector, tuned=None):
    return {number.name: number.value for number in collector.report(tuned).numbers}


def classified(examples, classes, seed=0, ties=False):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(examples, classes, generator=generator, dtype=torch.float64) * 2
    if ties:
        logits = logits.round()
    return logits, torch.randint(0, classes, (examples,), generator=generator)


@pytest.mark.parametrize(("examples", "classes"), [(200, 3), (50, 10), (1, 2), (7, 2)])
@pytest.mark.parametrize("ties", [False, True])
def test_classes(examples, classes, ties):
    logits, targets = classified(examples, classes, ties=ties)
    collector = Classification()
    for start in range(0, examples, 13):
        collector.add(logits[start : start + 13], targets[start : start + 13])
    found = numbers(collector)
    truth, shares = targets.numpy(), logits.softmax(1).numpy()
    said = shares.argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": reference.accuracy_score(truth, said),
            "balanced_accuracy": reference.balanced_accuracy_score(truth, said),
            "precision": reference.precision_score(truth, said, average="macro", zero_division=0),
            "recall": reference.recall_score(truth, said, average="macro", zero_division=0),
            "f1": reference.f1_score(truth, said, average="macro", zero_division=0),
            "matthews_corrcoef": reference.matthews_corrcoef(truth, said),
            "log_loss": reference.log_loss(truth, shares, labels=range(classes)),
        }
        kappa = reference.cohen_kappa_score(truth, said)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, **CLOSE), name
    assert found["cohen_kappa"] == pytest.approx(0.0 if np.isnan(kappa) else kappa, **CLOSE)
    present = [label for label in range(classes) if 0 < (truth == label).sum() < examples]
    if present and len(present) == len(set(truth)):
        areas = [reference.roc_auc_score(truth == label, shares[:, label]) for label in present]
        assert found["auroc"] == pytest.approx(np.mean(areas), **CLOSE)
        areas = [reference.average_precision_score(truth == label, shares[:, label]) for label in present]
        assert found["auprc"] == pytest.approx(np.mean(areas), **CLOSE)


@pytest.mark.parametrize("shape", [(300,), (300, 1), (60, 4)])
@pytest.mark.parametrize("ties", [False, True])
def test_labels(shape, ties):
    generator = torch.Generator().manual_seed(1)
    targets = (torch.rand(shape, generator=generator) < 0.3).float()
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) + targets
    if ties:
        logits = logits.round()
    collector = BinaryClassification()
    collector.add(logits[:20], targets[:20])
    collector.add(logits[20:], targets[20:])
    found = numbers(collector)
    truth, chances = targets.flatten().numpy() > 0, logits.flatten().sigmoid().numpy()
    said = chances > 0.5
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, said), **CLOSE)
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(truth, said), **CLOSE)
    assert found["f1"] == pytest.approx(reference.f1_score(truth, said), **CLOSE)
    assert found["recall"] == pytest.approx(reference.recall_score(truth, said), **CLOSE)
    assert found["specificity"] == pytest.approx(reference.recall_score(~truth, ~said), **CLOSE)
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(truth, chances), **CLOSE)
    assert found["auprc"] == pytest.approx(reference.average_precision_score(truth, chances), **CLOSE)
    assert found["brier_score"] == pytest.approx(reference.brier_score_loss(truth, chances), **CLOSE)
    assert found["log_loss"] == pytest.approx(reference.log_loss(truth, chances), **CLOSE)


def test_curves_are_those_of_the_reference():
    generator = np.random.default_rng(0)
    truth, scores = generator.random(200) < 0.4, generator.normal(size=200).round(1)
    false, true = rankings.roc_curve(rankings.ranking(scores, truth))
    expected = reference.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose((false, true), expected[:2], rtol=1e-12)
    recall, precision = rankings.precision_recall_curve(rankings.ranking(scores, truth))
    expected_precision, expected_recall, _ = reference.precision_recall_curve(truth, scores)
    np.testing.assert_allclose(recall, expected_recall[-2::-1], rtol=1e-12)
    np.testing.assert_allclose(precision, expected_precision[-2::-1], rtol=1e-12)


@pytest.mark.parametrize("shape", [(200,), (200, 1), (50, 3)])
def test_values(shape):
    generator = torch.Generator().manual_seed(2)
    targets = 1e4 + torch.randn(shape, generator=generator, dtype=torch.float64)
    predicted = targets + torch.randn(shape, generator=generator, dtype=torch.float64)
    collector = Regression()
    collector.add(predicted[:30], targets[:30])
    collector.add(predicted[30:], targets[30:])
    found, truth, said = numbers(collector), targets.flatten().numpy(), predicted.flatten().numpy()
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(truth, said), **CLOSE)
    assert found["mse"] == pytest.approx(reference.mean_squared_error(truth, said), **CLOSE)
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(truth, said), **CLOSE)
    assert found["r2"] == pytest.approx(reference.r2_score(truth, said), **CLOSE)
    assert found["pearson"] == pytest.approx(np.corrcoef(truth, said)[0, 1], **CLOSE)


def test_regions():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, 3, 5, 4, generator=generator)
    targets = torch.randint(0, 3, (6, 5, 4), generator=generator)
    targets[0, 0] = 255
    collector = Segmentation(255)
    collector.add(logits[:4], targets[:4])
    collector.add(logits[4:], targets[4:])
    report = collector.report()
    counted = (targets != 255).flatten().numpy()
    truth, said = targets.flatten().numpy()[counted], logits.argmax(1).flatten().numpy()[counted]
    found = {number.name: number.value for number in report.numbers}
    assert found["mean_iou"] == pytest.approx(reference.jaccard_score(truth, said, average="macro"), **CLOSE)
    assert found["mean_dice"] == pytest.approx(reference.f1_score(truth, said, average="macro"), **CLOSE)
    without = reference.f1_score(truth, said, average="macro", labels=[1, 2])
    assert found["mean_dice_without_class_0"] == pytest.approx(without, **CLOSE)
    assert found["pixel_accuracy"] == pytest.approx(reference.accuracy_score(truth, said), **CLOSE)


def test_tokens():
    logits = torch.randn(4, 9, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    tokens = torch.randint(0, 9, (4, 6), generator=torch.Generator().manual_seed(5))
    tokens[1, 3:] = -100
    collector = LanguageModelling()
    collector.add(logits[:3], tokens[:3])
    collector.add(logits[3:], tokens[3:])
    found, expected = numbers(collector), torch.nn.functional.cross_entropy(logits, tokens).item()
    assert found["loss_per_token"] == pytest.approx(expected, **CLOSE)
    assert found["perplexity"] == pytest.approx(np.exp(expected), **CLOSE)
    assert found["bits_per_token"] == pytest.approx(expected / np.log(2), **CLOSE)


def test_figures_of_tokens_are_sums_over_texts_of_any_length():
    generator, collector = torch.Generator().manual_seed(4), LanguageModelling()
    places, bits, sure, right = [], [], [], []
    for length in (6, 21, 1):
        logits = 8 * torch.randn(3, 9, length, generator=generator, dtype=torch.float64)
        tokens = torch.randint(0, 9, (3, length), generator=generator)
        tokens[1, length // 2 :] = -100
        collector.add(logits, tokens)
        shares = logits.softmax(1)
        for text, place in (tokens != -100).nonzero().tolist():
            target, share = tokens[text, place], shares[text, :, place]
            places.append(place + 1)
            bits.append(-share[target].log2().item())
            sure.append(share.max().item())
            right.append((share.argmax() == target).item())
    by_position, losses, calibration = (panel.data for panel in collector.report().panels)
    groups = np.floor(4 * np.log2(places)).astype(int)
    for name, values in (("position", places), ("bits", bits)):
        means = [np.mean(np.asarray(values)[groups == group]) for group in np.unique(groups)]
        assert by_position[name] == pytest.approx(means, **CLOSE)
    assert by_position["mean"] == pytest.approx(np.mean(bits), **CLOSE)
    assert losses["counts"] == np.histogram(np.minimum(bits, 31.9), 64, (0, 32))[0].tolist()
    assert max(bits) > 16  # the logits are so far apart that bars are far apart, too
    bins = np.minimum(np.floor(np.asarray(sure) * 15), 14).astype(int)
    expected = [
        {
            "examples": int(chosen.sum()),
            "sureness": np.mean(np.asarray(sure)[chosen]),
            "right": np.mean(np.asarray(right)[chosen]),
        }
        for chosen in (bins == number for number in np.unique(bins))
    ]
    assert [pytest.approx(each, **CLOSE) for each in expected] == calibration["bins"]


def test_losses_beyond_the_last_bar_count_in_it():
    collector = LanguageModelling()
    collector.add(torch.tensor([[[0.0, 0.0], [1000.0, 0.0]]]), torch.tensor([[0, 0]]))
    counts = collector.report().panels[1].data["counts"]
    assert (counts[2], counts[-1], sum(counts)) == (1, 1, 2)


@pytest.mark.parametrize(
    ("collector", "scores", "targets", "message"),
    [
        (Classification(), torch.zeros(2, 3), torch.full((2,), -100), "every target is ignore_index"),
        (Classification(), torch.zeros(2), torch.zeros(2), r"logits \[B, C\]"),
        (
            Classification(),
            torch.zeros(2, 3),
            torch.tensor([0, 3]),
            "target 3 is no class of the model: .* 0 to 2, or -100",
        ),
        (Segmentation(), torch.zeros(1, 3, 2), torch.tensor([[-1, 0]]), "target -1 is no class"),
        (BinaryClassification(), torch.zeros(2), torch.full((2,), -100.0), "every label is ignore_index"),
        (BinaryClassification(), torch.zeros(2, 2), torch.zeros(2), "of one shape"),
        (Regression(), torch.zeros(2), torch.zeros(2, 1), "of one shape"),
        (Segmentation(), torch.zeros(2, 3), torch.zeros(2), r"logits \[B, C, ...\]"),
        (LanguageModelling(), torch.zeros(2, 3, 4), torch.full((2, 4), -100), "every token is ignore_index"),
        (LanguageModelling(), torch.zeros(2, 3), torch.zeros(2), r"tokens \[B, T\]"),
    ],
)
def test_what_cannot_be_reported_is_an_error_that_says_so(collector, scores, targets, message):
    def report():
        collector.add(scores, targets)
        collector.report()

    with pytest.raises(DataError, match=message):
        report()


@pytest.mark.parametrize("place", [0, 1])
def test_scores_that_are_not_numbers_are_refused(place):
    logits = torch.zeros(4, 2)
    logits[place, 0] = torch.nan
    collector = Classification()
    collector.add(logits, torch.tensor([0, 1, 0, 1]))
    with pytest.raises(DataError, match="1 of 4 examples have scores that are NaN"):
        collector.report()


def test_one_class_alone_has_no_area():
    collector = BinaryClassification()
    collector.add(torch.randn(5), torch.ones(5))
    found = {number.name: number for number in collector.report().numbers}
    assert np.isnan(found["auroc"].value)
    assert found["auroc"].interval is None
    assert found["recall"].value == found["accuracy"].value


def test_the_tuned_threshold_is_the_best_on_the_tuning_data():
    generator = torch.Generator().manual_seed(6)
    targets = (torch.rand(200, generator=generator) < 0.2).float()
    logits = torch.randn(200, generator=generator) + 2 * targets - 2
    model = torch.nn.PReLU(init=1.0)  # gives its input
    state = ft.init_state(model, ft.binary_classification(), ft.optim.sgd(0.1))
    report = ft.evaluation_report(state, [(logits, targets)], tuning=[(logits, targets)])
    [table] = report.tables
    assert table.header[3] == f"at {report.threshold:.4g}"
    chances = logits.double().sigmoid().numpy()
    scores = [reference.f1_score(targets.numpy() > 0, chances >= t) for t in chances]
    rows = {row[0]: row[3] for row in table.rows}
    assert rows["f1"] == pytest.approx(max(scores), **CLOSE)
    assert reference.f1_score(targets.numpy() > 0, chances >= report.threshold) == pytest.approx(max(scores), **CLOSE)
    assert ft.evaluation_report(state, [(logits, targets)]).threshold is None


def test_logits_of_tokens_that_are_not_numbers_are_refused():
    logits = torch.zeros(3, 5, 4)
    logits[1, 2, 3] = torch.nan
    collector = LanguageModelling()
    collector.add(logits, torch.ones(3, 4, dtype=torch.int64))
    with pytest.raises(DataError, match="1 of 3 examples have scores that are NaN"):
        collector.report()
