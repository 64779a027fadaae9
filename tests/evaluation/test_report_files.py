"""Reports as files: what is written, that it can be read again, and that equal reports are equal files."""

import csv
import html.parser
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

import functrain as ft
from functrain.evaluation import panels


def numbered(*shape):
    return torch.arange(torch.Size(shape).numel()).view(shape)


def thirds(*shape):
    return (numbered(*shape) % 3 == 0).float()


TASKS = {
    "classification": (nn.Linear(4, 3), ft.classification(), lambda n: numbered(n) % 3),
    "binary_classification": (nn.Linear(4, 1), ft.binary_classification(), lambda n: thirds(n, 1)),
    "several labels": (nn.Linear(4, 2), ft.binary_classification(), lambda n: thirds(n, 2)),
    "regression": (nn.Linear(4, 1), ft.regression(), lambda n: numbered(n, 1) / n),
    "several values": (nn.Linear(4, 2), ft.supervised(nn.functional.mse_loss), lambda n: numbered(n, 2) / n),
    "segmentation": (
        nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2, 1))),
        ft.segmentation(),
        lambda n: numbered(n, 2, 1) % 2,
    ),
    "a mask": (
        nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2))),
        ft.binary_classification("binary_dice"),
        lambda n: thirds(n, 1, 2, 2),
    ),
    "language_modelling": (
        nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2))),
        ft.language_modelling(),
        lambda n: numbered(n, 2) % 2,
    ),
}


def report_of(task, examples=24, **options):
    model, objective, targets = TASKS[task]
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    state = ft.init_state(model, objective, ft.optim.sgd(0.1))
    data = torch.randn(examples, 4), targets(examples)
    batches = [tuple(part[start : start + 10] for part in data) for start in range(0, examples, 10)]
    return ft.evaluation_report(state, batches, **options)


class Page(html.parser.HTMLParser):
    """Reads a page; counts tags, and sees that each is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("task", TASKS)
def test_every_task_writes_its_report(task, tmp_path):
    report = report_of(task)
    files = ft.write_report(report, tmp_path / "out", {"split": "test"}, {"loss": 0.5}, title="Run <1>")
    assert sorted(files) == sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    names = {path.name for path in files}
    assert {"metrics.json", "metrics.csv", "report.txt", "report.html", "scores.npz"} <= names
    content = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (content["split"], content["loss"], content["task"]) == ("test", 0.5, report.task)
    assert content["examples"] == 24
    for number in report.numbers:
        shown = content["numbers"][number.name]
        assert shown == number.value or (shown is None and np.isnan(number.value))
    rows = list(csv.DictReader((tmp_path / "out/metrics.csv").read_text().splitlines()))
    assert rows[0] == {"class": "all", "metric": "loss", "value": "0.5", "low": "", "high": ""}
    assert {row["metric"] for row in rows if row["class"] == "all"} == {"loss", *content["numbers"]}
    page = Page()
    page.feed((tmp_path / "out/report.html").read_text())
    assert page.open == []
    assert page.tags.count("img") == len(report.panels)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "Run &lt;1&gt;" in (tmp_path / "out/report.html").read_text()
    text = (tmp_path / "out/report.txt").read_text()
    assert all(number.name in text for number in report.numbers)
    with np.load(tmp_path / "out/scores.npz") as scores:
        assert all(len(scores[name]) == 24 for name in scores.files)
    if report.predictions is not None:
        rows = list(csv.reader((tmp_path / "out/predictions/predictions.csv").read_text().splitlines()))
        assert len(rows) == 25


def test_an_interval_holds_its_number():
    for task in TASKS:
        for number in report_of(task).numbers:
            if number.interval is not None:
                assert number.interval.low <= number.value <= number.interval.high, (task, number)


def test_equal_reports_are_equal_files(tmp_path):
    for folder in ("a", "b"):
        ft.write_report(report_of("binary_classification"), tmp_path / folder)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_is_drawn_again_from_its_data(tmp_path, suffix):
    panel = report_of("classification").panels[0]
    first = panels.draw(panel, tmp_path / f"a.{suffix}").read_bytes()
    again = panels.read_panel(panels.write_panel(panel, tmp_path / "panel.json"))
    assert again.data == panel.data
    assert panels.draw(again, tmp_path / f"b.{suffix}").read_bytes() == first


def test_a_file_that_holds_no_figure_is_an_error(tmp_path):
    for text in ("{", "{}", "[1]", '{"name": 1}'):
        (tmp_path / "panel.json").write_text(text)
        with pytest.raises(ValueError, match="is not the data of a figure"):
            panels.read_panel(tmp_path / "panel.json")


def test_an_objective_without_a_task_is_told_to_name_one():
    state = ft.init_state(nn.Linear(4, 1), ft.supervised(lambda o, t: (o - t).square().mean()), ft.optim.sgd(0.1))
    with pytest.raises(ValueError, match="Set its attribute `task` to one of classification, "):
        ft.evaluation_report(state, [(torch.ones(2, 4), torch.ones(2, 1))])


def test_an_objective_of_ones_own_names_its_task():
    def objective(model, batch):
        return ft.regression()(model, batch)

    objective.task = "regression"
    state = ft.init_state(nn.Linear(4, 1), objective, ft.optim.sgd(0.1))
    assert ft.evaluation_report(state, [(torch.ones(2, 4), torch.ones(2, 1))]).task == "regression"
    objective.task = "guessing"
    with pytest.raises(ValueError, match="got 'guessing'"):
        ft.evaluation_report(state, [(torch.ones(2, 4), torch.ones(2, 1))])


def test_names_of_classes_are_shown():
    report = report_of("classification", labels=["cat", "dog", "owl"])
    assert [row[0] for row in report.tables[0].rows] == ["cat", "dog", "owl"]
    assert report.panels[0].data["labels"] == ["cat", "dog", "owl"]
    with pytest.raises(ValueError, match="3 classes, but 2 labels"):
        report_of("classification", labels=["cat", "dog"])


class Named(TensorDataset):
    """A data set that knows the names of its classes, as torchvision's do."""

    def __init__(self, classes, *tensors):
        super().__init__(*tensors)
        self.classes = classes


@pytest.mark.parametrize(
    ("classes", "expected"), [(["cat", "dog", "owl"], ["cat", "dog", "owl"]), (["cat"], ["0", "1", "2"])]
)
def test_names_that_the_data_set_knows_are_shown_if_they_fit(classes, expected):
    state = ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.sgd(0.1))
    data = Named(classes, torch.randn(24, 4), torch.arange(24) % 3)
    for dataset in (data, Subset(data, range(20))):
        report = ft.evaluation_report(state, ft.data.Loader(dataset, 10, shuffle=False))
        assert [row[0] for row in report.tables[0].rows] == expected
        assert report.panels[0].data["labels"] == expected
    own = ft.evaluation_report(state, ft.data.Loader(data, 10, shuffle=False), labels=["a", "b", "c"])
    assert own.panels[0].data["labels"] == ["a", "b", "c"]


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_two_names_of_a_yes_or_no_are_those_of_its_confusion_matrix(outputs):
    state = ft.init_state(nn.Linear(4, outputs), ft.binary_classification(), ft.optim.sgd(0.1))
    data = Named(
        ["benign", "malignant"], torch.randn(24, 4), (torch.arange(24 * outputs) % 2).view(24, outputs).float()
    )
    report = ft.evaluation_report(state, ft.data.Loader(data, 10, shuffle=False))
    matrix = next(panel for panel in report.panels if panel.name == "confusion_matrix")
    assert matrix.data["labels"] == (["benign", "malignant"] if outputs == 1 else ["no", "yes"])
