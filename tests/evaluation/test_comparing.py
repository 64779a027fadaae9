"""Models compared on the same examples."""

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import functrain as ft
from functrain.data import Arrays, Loader
from functrain.evaluation import bootstrap, compare_reports, panels, rankings
from functrain.evaluation.comparing.replicates import replicates
from functrain.evaluation.kept_rows import KeptRows
from functrain.evaluation.panels.models import mean_roc
from functrain.foundation.errors import DataError


def numbered(*shape):
    return torch.arange(torch.Size(shape).numel()).view(shape)


INPUTS = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
SIGNS = (INPUTS[:, :1] + INPUTS[:, 1:2] > 0).float()
TASKS = {
    "classification": (nn.Linear(4, 3), ft.classification(), numbered(60) % 3),
    "classification with a class that does not count": (
        nn.Linear(4, 3),
        ft.classification(ignore_index=2),
        numbered(60) % 3,
    ),
    "binary_classification": (nn.Linear(4, 1), ft.binary_classification(), SIGNS),
    "several labels": (nn.Linear(4, 2), ft.binary_classification(), torch.cat([SIGNS, 1 - SIGNS], 1)),
    "regression": (nn.Linear(4, 2), ft.supervised(nn.functional.mse_loss), INPUTS[:, :2] * 2),
    "segmentation": (
        nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2, 1))),
        ft.segmentation(),
        numbered(60, 2, 1) % 2,
    ),
    "language_modelling": (
        nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2))),
        ft.language_modelling(),
        numbered(60, 2) % 2,
    ),
}


def state_of(task, seed=0):
    model, objective, _ = TASKS[task]
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return ft.init_state(model, objective, ft.optim.sgd(0.1), seed=seed)


def loader_of(task):
    return Loader(Arrays(INPUTS, TASKS[task][2]), 17)


@pytest.mark.parametrize("task", TASKS)
def test_a_replicate_that_takes_each_example_once_is_the_report(task, monkeypatch):
    report = ft.evaluation_report(state_of(task), loader_of(task))
    monkeypatch.setattr(bootstrap, "shared_draws", lambda count: (np.arange(count), np.ones((1, count))))
    found = replicates(report)
    assert set(found) == {number.name for number in report.numbers}
    for number in report.numbers:  # of probabilities in float32: sums of them are known to 2**-24
        assert found[number.name] == pytest.approx([number.value], rel=4 * 2**-24), number.name


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_compared_and_a_model_with_itself_does_not_differ(task):
    state = state_of(task)
    found = ft.compare_models({"a": state, "same": state, "b": state_of(task, 1)}, loader_of(task))
    assert found.examples == (40 if "count" in task else 60)
    itself = [test for test in found.tests if (test.model, test.other) == ("a", "same")]
    assert {test.metric for test in itself} == {number.name for number in found.numbers["a"]}
    for test in itself:
        assert (test.difference, test.p, test.p_holm) == (0.0, 1.0, 1.0) or math.isnan(test.p), test
        assert test.interval in (None, (0.0, 0.0)), test
    for test in found.tests:
        values = [{n.name: n.value for n in found.numbers[name]}[test.metric] for name in (test.model, test.other)]
        assert test.difference == pytest.approx(values[0] - values[1], abs=1e-15, nan_ok=True)
        assert test.p <= test.p_holm <= 1 or math.isnan(test.p)


def test_which_metric_has_which_tests():
    def kinds(task):
        found = ft.compare_models({"a": state_of(task), "b": state_of(task, 1)}, loader_of(task))
        return {test.metric: test.test for test in found.tests if test.test != "bootstrap"}

    assert kinds("classification") == {"accuracy": "McNemar"}
    assert kinds("binary_classification") == {"accuracy": "McNemar", "auroc": "DeLong"}
    for task in ("several labels", "regression", "segmentation", "language_modelling"):
        assert kinds(task) == {}


def test_the_spread_of_a_difference_is_that_of_paired_examples():
    """Models that err alike: the spreads of each alone would be far too wide for their difference."""
    wrong = torch.arange(400) < 100
    targets, logits = wrong.long(), torch.tensor([[1.0, 0.0]]).repeat(400, 1)
    other = logits.clone()
    other[90:130] = other[90:130].flip(1)  # 10 more right, and 30 more wrong
    reports = []
    for scores in (logits, other):
        collector = ft.evaluation.reports.TaskCollector(ft.classification(), KeptRows())
        collector.add(scores, targets)
        reports.append(collector.chosen.report())
    spread = (replicates(reports[0])["accuracy"] - replicates(reports[1])["accuracy"]).std()
    expected = math.sqrt((40 - 20**2 / 400) / 400**2)
    # A standard deviation from 2,000 replicates is known to 1 / sqrt(4000), 1.6 %.
    assert spread == pytest.approx(expected, rel=4 * 0.016)
    (test,) = [t for t in compare_reports(dict(zip("ab", reports)), ["accuracy"]).tests if t.test == "bootstrap"]
    assert test.interval.high - test.interval.low == pytest.approx(2 * 1.96 * expected, rel=0.1)


def test_functions_modules_and_results_of_fit_are_models():
    objective, loader = ft.classification(), loader_of("classification")
    state = state_of("classification")
    module = ft.to_module(state).train()
    learned = LogisticRegression().fit(INPUTS.numpy(), TASKS["classification"][2].numpy())
    result = ft.fit(state, loader, epochs=1, compile=False, progress=False)
    found = ft.compare_models(
        {
            "state": state,
            "module": module,
            "scikit-learn": lambda inputs: learned.predict_log_proba(inputs.numpy()),
            "fitted": result,
        },
        loader,
    )
    values = {name: {n.name: n.value for n in numbers} for name, numbers in found.numbers.items()}
    assert values["state"] == values["module"]
    assert module.training
    accuracy = learned.score(INPUTS.numpy(), TASKS["classification"][2].numpy())
    assert values["scikit-learn"]["accuracy"] == pytest.approx(accuracy)
    expected = ft.evaluation_report(result.state, loader)
    assert values["fitted"] == {number.name: number.value for number in expected.numbers}
    assert objective.task == found.task


def test_a_module_is_evaluated_without_dropout_and_gets_its_modes_back():
    frozen = nn.Dropout(0.5).eval()
    module = nn.Sequential(nn.Dropout(0.5), frozen, nn.Linear(4, 3))
    once = ft.compare_models({"a": module, "b": module}, loader_of("classification"), task="classification")
    assert all(test.difference == 0 for test in once.tests)
    assert [part.training for part in module] == [True, False, True]


def test_each_batch_is_read_once_and_all_models_get_it():
    reads = []

    def batches():
        for start in range(0, 60, 20):
            reads.append(start)
            yield INPUTS[start : start + 20], TASKS["classification"][2][start : start + 20]

    models = {"a": state_of("classification"), "b": state_of("classification", 1)}
    found = ft.compare_models(models, batches())
    assert reads == [0, 20, 40]
    shuffled = Loader(Arrays(INPUTS, TASKS["classification"][2]), 7, shuffle=True)
    again = ft.compare_models(models, shuffled)
    ours, theirs = (next(test for test in each.tests if test.test == "McNemar") for each in (found, again))
    assert ours == theirs


def test_averaged_parameters_are_compared_where_asked():
    model, objective, targets = TASKS["classification"]
    state = ft.init_state(model, objective, ft.optim.sgd(1.0), ema_decay=0.5)
    state, _ = ft.train_step(state, (INPUTS, targets))
    found = ft.compare_models({"a": state, "b": state}, loader_of("classification"), ema=True)
    expected = ft.evaluation_report(state, loader_of("classification"), ema=True)
    assert found.numbers["a"] == expected.numbers


def refusal(kind, models, **options):
    with pytest.raises(kind) as caught:
        ft.compare_models(models, loader_of("classification"), **options)
    return str(caught.value)


def test_what_cannot_be_compared_is_refused():
    state = state_of("classification")
    assert "two or more models by their names; got 1" in refusal(ValueError, {"a": state})
    assert "got a list" in refusal(ValueError, [state, state])
    assert refusal(TypeError, {"a": state, "b": "runs/b"}).startswith("model 'b' is a str; a model is a state, ")
    functions = {"a": lambda x: x[:, :3], "b": lambda x: x[:, 1:]}
    assert "none of the models names its task" in refusal(ValueError, functions)
    assert "got 'classes'" in refusal(ValueError, functions, task="classes")
    assert "but a was trained for classification" in refusal(ValueError, {"a": state, "b": state}, task="regression")
    assert "a is for classification, b for regression" in refusal(
        ValueError, {"a": state, "b": ft.init_state(nn.Linear(4, 1), _Any(), ft.optim.sgd(0.1))}
    )
    four = ft.init_state(nn.Linear(4, 4), ft.classification(), ft.optim.sgd(0.1))
    assert "a has 3 classes, b has 4" in refusal(DataError, {"a": state, "b": four})
    wrong = refusal(DataError, {"a": state, "b": lambda x: torch.full((len(x), 3), torch.nan)})
    assert wrong.startswith("b: 60 of 60 examples have scores that are NaN")
    assert "metrics to compare must be some of accuracy, " in refusal(
        ValueError, {"a": state, "b": state}, metrics=["acuracy"]
    )
    assert "such as metrics=['auroc']; got a text" in refusal(ValueError, {"a": state, "b": state}, metrics="auroc")
    assert refusal(TypeError, {"a": state, "b": lambda _: None}).startswith("b: the model returned a NoneType")


def test_an_error_of_a_function_says_which_model_raised_it():
    with pytest.raises(RuntimeError) as caught:
        ft.compare_models(
            {"a": state_of("classification"), "b": lambda x: x @ torch.ones(9, 9)}, loader_of("classification")
        )
    assert caught.value.__notes__ == ["the model 'b' of the comparison raised this"]


class _Any:
    """An objective of values, which takes classes as such."""

    task = "regression"

    def __call__(self, model, batch):
        raise NotImplementedError

    def compared(self, outputs, targets):
        return outputs, targets[:, None].float()


def test_reports_of_other_examples_are_refused():
    state = state_of("classification")
    reports = {
        "a": ft.evaluation_report(state, [(INPUTS, numbered(60) % 3)]),
        "fewer": ft.evaluation_report(state, [(INPUTS[:50], numbered(50) % 3)]),
        "turned": ft.evaluation_report(state, [(INPUTS, (numbered(60) + 1) % 3)]),
    }
    for other, message in {"fewer": "60 examples and fewer on 50", "turned": "60 of the 60 targets of a"}.items():
        with pytest.raises(DataError, match=message):
            compare_reports({name: reports[name] for name in ("a", other)})


def test_the_files_of_a_comparison(tmp_path):
    task = "binary_classification"
    found = ft.compare_models({"small net": state_of(task), "large net": state_of(task, 1)}, loader_of(task))
    files = ft.write_comparison(found, tmp_path / "one", {"split": "test"})
    assert {path.name for path in files if path.parent.name == "one"} == {
        "model_comparison.txt",
        "model_comparison.csv",
        "model_comparison.json",
        "model_comparison.png",
        "paired_tests.csv",
        "roc_comparison.png",
    }
    for path in files:
        assert path.stat().st_size > 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "one/model_comparison.csv").read_text())))
    assert [row["model"] for row in rows] == ["small net", "large net"]
    content = json.loads((tmp_path / "one/model_comparison.json").read_text())
    assert content["split"] == "test"
    for row in rows:
        for number in found.numbers[row["model"]]:
            assert float(row[number.name]) == number.value
            assert float(row[f"{number.name}_low"]) == number.interval.low
            assert content["models"][row["model"]][number.name]["value"] == number.value
    tests = list(csv.DictReader(io.StringIO((tmp_path / "one/paired_tests.csv").read_text())))
    assert [float(row["p_holm"]) for row in tests] == [test.p_holm for test in found.tests]
    assert (tmp_path / "one/model_comparison.txt").read_text() == f"split: test\n{found}\n"
    again = ft.compare_models({"small net": state_of(task), "large net": state_of(task, 1)}, loader_of(task))
    for path in ft.write_comparison(again, tmp_path / "two", {"split": "test"}):
        assert path.read_bytes() == (tmp_path / "one" / path.relative_to(tmp_path / "two")).read_bytes(), path
    shown = panels.read_panel(tmp_path / "one/figures/roc_comparison.json")
    drawn = panels.draw(shown, tmp_path / "again.png")
    assert drawn.read_bytes() == (tmp_path / "one/roc_comparison.png").read_bytes()


@pytest.mark.parametrize("levels", [3, 10_000])
def test_the_area_under_a_mean_of_curves_is_the_mean_of_their_areas(levels):
    generator = np.random.default_rng(levels)
    of_classes = [
        rankings.ranking(np.round(generator.random(80) * levels) + levels / 4 * positive, positive)
        for positive in generator.random((3, 80)) < 0.4
    ]
    (curve,) = mean_roc({"a": of_classes})
    expected = np.mean([rankings.auroc(*one[1:]) for one in of_classes])
    assert curve["auroc"] == pytest.approx(expected)
    heights, widths = np.array(curve["tpr"]), np.diff(curve["fpr"])
    assert (heights[1:] + heights[:-1]) @ widths / 2 == pytest.approx(expected, rel=1e-12)
    assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
    assert (np.diff(curve["tpr"]) >= -1e-15).all()


def test_bars_are_drawn_for_values_below_zero_and_for_none(tmp_path):
    values = {"a": (-0.5, bootstrap.Interval(-0.6, -0.4)), "b": (float("nan"), None), "c": (2.5, None)}
    shown = panels.models.metric_bars("r2", values)
    path = panels.write_panel(shown, tmp_path / "bars.json")
    assert panels.draw(panels.read_panel(path), tmp_path / "bars.png").stat().st_size > 1000
