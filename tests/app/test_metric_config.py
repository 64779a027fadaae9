"""Metrics in a configuration: by name, with arguments, of one's own; listed, checked, recorded and evaluated."""

import json
from pathlib import Path
from typing import Any

import pytest

from functrain.app.cli import main
from functrain.app.config.build import build_metrics
from functrain.app.config.loading import load_config
from functrain.errors import ConfigError

CONFIG = """\
name: measured
model: {name: digits_cnn, channels: 4}
data: {name: digits, batch_size: 512}
objective: {name: classification}
optimizer: {name: sgd, lr: 0.1}
training: {epochs: 1}
compile: false
metrics: METRICS
"""


def written(folder: Path, metrics: str) -> Path:
    path = folder / "measured.yaml"
    path.write_text(CONFIG.replace("METRICS", metrics))
    return path


def test_a_run_records_and_evaluates_what_its_configuration_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "[auroc, {name: recall_at_fpr, fpr: 0.1}, {name: f1, average: weighted, label: wf1}]")
    assert main(["train", str(path)]) == 0
    [record] = [json.loads(line) for line in Path("runs/measured/metrics.jsonl").read_text().splitlines()
                if '"epoch"' in line and '"kind": "epoch"' in line]  # fmt: skip
    assert {"eval_auroc", "eval_recall_at_fpr", "eval_wf1", "train_wf1"} <= record.keys()
    capsys.readouterr()
    assert main(["evaluate", "runs/measured"]) == 0
    assert "auroc" in capsys.readouterr().out
    assert "wf1" in json.loads(Path("runs/measured/test/metrics.json").read_text())
    assert main(["train", str(path), "training.epochs=2"]) == 0  # and goes on


def test_a_metric_of_ones_own_is_a_function_that_returns_one(tmp_path: Path) -> None:
    (tmp_path / "measures_of_mine.py").write_text(
        "from functrain import metrics\n"
        "def gap(power: int = 1):\n"
        "    def add(acc, outputs, targets, weight):\n"
        "        return acc + weight.sum() ** power\n"
        "    return (lambda: 0.0), add, (lambda acc: acc)\n"
        "def best():\n"
        "    return metrics.accuracy(top_k=3)\n"
    )
    path = written(
        tmp_path, "[{name: 'measures_of_mine:gap', power: 2}, {name: 'measures_of_mine:best', label: top3}, f1]"
    )
    measures = build_metrics(load_config(path))
    assert measures is not None
    assert [each.name for each in measures.metrics] == ["gap", "top3", "f1"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("[aurok]", "unknown metric 'aurok'; did you mean 'auroc'?"),
        ("[{name: f1, averag: macro}]", "unknown key 'averag' in metrics.0 (f1); did you mean 'average'?"),
        ("[accuracy, {name: f1, average: mean}]", "metrics.1.average must be"),
        ("[{average: macro}]", "missing key 'name' in metrics.0"),
        ("[{name: recall_at_fpr, fpr: 2}]", "metrics.0 (recall_at_fpr): fpr must be a false positive rate"),
        ("[f1, f1]", "two metrics have the name f1"),
        ("f1", "metrics must be a list"),
        ("[3]", "metrics.0"),
    ],
)
def test_mistakes_are_said(tmp_path: Path, metrics: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_metrics(load_config(written(tmp_path, metrics)))
    assert message in str(error.value)


def test_metrics_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "metrics"]) == 0
    assert "recall_at_fpr" in capsys.readouterr().out
    assert main(["list", "metrics", "recall_at_fpr"]) == 0
    out: Any = capsys.readouterr().out
    assert "false positive rate" in out
    assert "fpr" in out
