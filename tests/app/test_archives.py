"""functrain export RUN OUT.zip, and what opens such a file."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import functrain as ft
from functrain.app.config.loading import load_config, plain
from functrain.app.runs.directory import existing_run
from functrain.app.runs.from_checkpoint import rebuilt_run
from functrain.foundation.errors import CheckpointError

ELSEWHERE = """
import sys, torch, functrain as ft
try:
    import tiny_project
except ModuleNotFoundError:
    pass
else:
    sys.exit("the model's source is here")
torch.set_num_threads(1)
model = ft.load_archive(sys.argv[1])
torch.save(ft.predict(model, iter(torch.load(sys.argv[2]))), sys.argv[3])
"""


def predicted(run, batches, ema=False):
    from functrain.checkpoint import read_checkpoint

    rebuilt = rebuilt_run(run / "checkpoints" / "last", trust=False)
    return ft.predict(read_checkpoint(rebuilt.info.path, rebuilt.state).tree, iter(batches), ema=ema)


def test_another_interpreter_predicts_the_same_bits_without_the_models_source(functrain, runs, project, bits):
    code, out, err = functrain("export", "runs/tiny", "tiny.zip")
    assert (code, err) == (0, "")
    assert "traced for any number of examples; the model's bits" in out
    batches = [torch.randn(rows, 2) for rows in (8, 8, 3, 1)]
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    torch.save(batches, elsewhere / "batches.pt")
    environment = os.environ | {"PYTHONPATH": str(Path(ft.__file__).parents[1])}
    arguments = [str(project / "tiny.zip"), "batches.pt", "found.pt"]
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *arguments], cwd=elsewhere, env=environment, check=True, timeout=300
    )
    assert bits(torch.load(elsewhere / "found.pt")) == bits(predicted(runs / "tiny", batches))


def test_the_python_of_the_page_on_files_runs(functrain, runs):
    """That of exchange.md."""
    assert functrain("export", "runs/tiny", "digits.zip")[0] == 0
    page = Path(__file__).parents[2] / "docs" / "exchange.md"
    (block,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    known = {"ft": ft, "loader": iter([torch.randn(4, 2)]), "images": torch.randn(3, 2)}
    exec(compile(block, page, "exec"), known)
    assert len(known["outputs"]) == 3


def test_an_archive_may_hold_the_averages(functrain, runs, bits):
    assert functrain("export", "runs/tiny", "averages.zip", "--ema")[0] == 0
    model, batches = ft.load_archive("averages.zip"), [torch.randn(5, 2)]
    assert model.about["parameters"] == "averaged"
    assert bits(ft.predict(model, iter(batches))) == bits(predicted(runs / "tiny", batches, ema=True))


def test_a_run_gives_the_same_bytes_again_and_after_it_was_moved(functrain, runs, project):
    assert functrain("export", "runs/tiny", "first.zip")[0] == 0
    (project / "moved").mkdir()
    runs.rename(project / "moved" / "runs")
    assert functrain("export", "moved/runs/tiny", "second.zip")[0] == 0
    assert (project / "first.zip").read_bytes() == (project / "second.zip").read_bytes()


def test_an_archive_holds_the_runs_files_and_says_which_checkpoint_it_is(functrain, runs):
    assert functrain("export", "runs/tiny", "tiny.zip")[0] == 0
    with zipfile.ZipFile("tiny.zip") as archive:
        assert archive.testzip() is None
        about = json.loads(archive.read("archive.json"))
        for name in ("README.md", "metrics.csv", "metrics.jsonl", "test/metrics.json", "training_curves.png"):
            assert archive.read(name) == (runs / "tiny" / name).read_bytes()
        assert str(runs).encode() not in archive.read("program.pt2")
    wanted = {"name": "tiny", "step": 9, "epoch": 3, "parameters": "trained", "checkpoint": "step-00000009"}
    assert {key: about[key] for key in wanted} == wanted


def test_an_archive_holds_the_report_of_the_test_split(functrain, runs):
    assert functrain("evaluate", "runs/tiny")[0] == 0
    folder = runs / "tiny" / "test"
    (folder / "my notes.txt").write_text("a name that no archive has")
    (folder / "elsewhere.csv").symlink_to(runs / "tiny" / "metrics.csv")
    code, out, _ = functrain("export", "runs/tiny", "tiny.zip")
    with zipfile.ZipFile("tiny.zip") as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name.startswith("test/")}
    written = {path for path in folder.rglob("*") if path.is_file()} - {
        folder / "my notes.txt",
        folder / "elsewhere.csv",
    }
    assert held == {f"test/{path.relative_to(folder)}": path.read_bytes() for path in written}
    assert {"test/report.html", "test/figures/roc.json", "test/predictions/predictions.csv"} <= held.keys()
    assert (code, f"test/ ({len(held)} files)" in out) == (0, True), out
    assert ft.load_archive("tiny.zip").about["name"] == "tiny"


def test_the_configuration_in_an_archive_is_that_of_the_run(functrain, runs, project):
    assert functrain("export", "runs/tiny", "tiny.zip")[0] == 0
    with zipfile.ZipFile("tiny.zip") as archive:
        archive.extract("config.yaml", project)
    assert plain(load_config("config.yaml", trust=True)) == plain(existing_run(runs / "tiny")[1])


def test_a_run_begins_with_the_parameters_of_an_archive_of_anybody(functrain, runs, project, monkeypatch):
    assert functrain("export", "runs/tiny", "tiny.zip")[0] == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "another"))
    arguments = ["--init-from", "tiny.zip", "optimizer.lr=0", "training.steps=1", "name=begun", "--no-progress"]
    code, out, err = functrain("train", "tiny.yaml", *arguments)
    assert (code, "begins with the parameters in " in out) == (0, True), err
    code, out, _ = functrain("diff", "runs/tiny", "runs/begun")
    assert not [line for line in out.splitlines() if line.strip().startswith("params/")]


def test_the_program_of_somebody_else_is_opened_only_with_trust(functrain, runs, project, monkeypatch):
    assert functrain("export", "runs/tiny", "tiny.zip")[0] == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "another"))
    monkeypatch.setattr("torch.export.load", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(CheckpointError, match=r"carries no signature of yours.*load_archive\(\.\.\., trust=True\)"):
        ft.load_archive("tiny.zip")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "another"))
    assert ft.load_archive(project / "tiny.zip", trust=True)(torch.ones(2, 2)).shape == (2, 3)


BRANCHING = """
import torch
from torch import nn

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else self.linear(-x)
"""


def test_of_a_model_that_cannot_be_traced_the_archive_has_the_rest_and_says_why(functrain, project):
    (project / "branching.py").write_text(BRANCHING)
    options = ["model={name: 'branching:Branching'}", "training.steps=1", "--no-progress"]
    assert functrain("train", "tiny.yaml", *options)[0] == 0
    code, out, err = functrain("export", "runs/tiny", "tiny.zip")
    assert (code, err) == (0, "")
    assert "program  none: " in out
    assert "data-dependent" in out
    assert set(ft.checkpoint.load_state_dict("tiny.zip")) == {"linear.weight", "linear.bias"}
    with pytest.raises(CheckpointError, match=r"tiny\.zip holds no traced program \(.*data-dependent"):
        ft.load_archive("tiny.zip")


def test_without_the_data_the_archive_has_no_program_and_says_why(functrain, runs, monkeypatch):
    def gone(*_):
        raise FileNotFoundError("no such file: points.npy")

    monkeypatch.setattr("functrain.app.runs.export_archive.build_loader", gone)
    code, out, err = functrain("export", "runs/tiny", "tiny.zip")
    assert (code, err) == (0, "")
    assert "which cannot be read (no such file: points.npy)" in out


def test_mistakes_are_messages(functrain, runs):
    code, _, err = functrain("export", "runs/tiny", "tiny.zip", "--optimizer")
    assert (code, "--optimizer: a .zip file holds the model's tensors alone; use .pt" in err) == (2, True)
    Path("torn.zip").write_bytes(b"PK\x03\x04" + bytes(26) + b"archive.json{")
    code, _, err = functrain("train", "tiny.yaml", "--init-from", "torn.zip", "name=torn", "--no-progress")
    assert (code, "torn.zip is damaged: its end is missing" in err) == (2, True)


def test_predict_takes_an_archive_as_it_takes_the_run(functrain, runs, project, monkeypatch):
    np.save("points.npy", torch.randn(5, 2).numpy())
    assert functrain("export", "runs/tiny", "tiny.zip")[0] == 0
    assert functrain("predict", "runs/tiny", "points.npy")[0] == 0
    code, out, err = functrain("predict", "tiny.zip", "points.npy")
    assert (code, err) == (0, "")
    assert "5 predictions of tiny.zip (step 9)" in out
    expected = (runs / "tiny" / "predictions" / "predictions.csv").read_text()
    assert (project / "predictions" / "predictions.csv").read_text() == expected
    code, _, err = functrain("predict", "tiny.zip", "points.npy", "--ema")
    assert (code, "an archive holds one set of parameters" in err) == (2, True)
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "another"))
    code, _, err = functrain("predict", "tiny.zip", "points.npy")
    assert (code, "carries no signature of yours" in err, "--trust on the command line" in err) == (2, True, True)
    assert functrain("predict", "tiny.zip", "points.npy", "--trust")[0] == 0
