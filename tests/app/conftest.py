import contextlib
import os
import shutil
import sys
import textwrap

import pytest
from fake_members import fake_members
from staged_runs import REST, STAGES

from functrain.app.cli import main

TINY = """
model: {name: "tiny_project:net", width: 8}
data: {name: "tiny_project:points", batch_size: 8}
objective: {name: classification}
optimizer: {name: adamw, lr: 1e-2}
training: {epochs: 2}
compile: false
logging: {log_every: 2}
"""

CODE = """
import torch
from torch import nn
from functrain.data import Arrays

def net(width: int = 4, dropout: float = 0.1):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Dropout(dropout), nn.Linear(width, 3))

def points(split, count: int = 20):
    generator = torch.Generator().manual_seed(("train", "val", "test").index(split))
    inputs = torch.randn(count, 2, generator=generator)
    return Arrays(inputs, (inputs.sum(1) > 0).long())

def train_only(split):
    return points("train") if split == "train" else None

def val_only(split):
    return points("val") if split == "val" else None

def empty(split):
    return Arrays(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))

def bad_labels(split):
    return Arrays(torch.zeros(8, 2), torch.tensor([0, 1, 2, 7, 0, 0, 0, 0]))

def buggy(split):
    return {}["no such key"]

def no_module(width=1):
    return "a network"

def my_objective(model, batch, scale: float = 1.0):
    from functrain import Loss
    inputs, targets = batch[0], batch[1]
    return Loss(scale * model(inputs).square().sum(), float(len(inputs)))

def my_optimizer(lr, strength: int = 1):
    from functrain import optim
    return optim.sgd(lr)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a configuration and the user's own code, as current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "tiny_project.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("tiny_project", None)


@pytest.fixture
def write(project):
    """Write a configuration and return its path."""

    def write(text, name="c.yaml"):
        (project / name).write_text(textwrap.dedent(text).lstrip("\n"))
        return name

    return write


@pytest.fixture
def functrain(project, capsys):
    """Run a command line in this process: exit code, output, errors."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([os.fspath(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def fakes(project, monkeypatch):
    """Members of sweeps that are fakes; returns the directory of the sweep of `tiny.yaml`."""
    fake_members(monkeypatch)
    return project / "runs" / "tiny-sweep"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with two runs of the same 9 updates, 3 an epoch: `tiny` keeps one checkpoint, `all` keeps each.

    A third, `interrupted`, has done 6 of them, with a digest of each.
    """
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "tiny_project.py").write_text(CODE)
    common = ["training.epochs=3", "training.plateau={patience: 0}", "training.ema_decay=0.9", "--no-progress"]
    starts = (
        ("tiny", ["checkpoint.keep=1"]),
        ("all", ["checkpoint.keep=99", "checkpoint.save_every=1"]),
        ("interrupted", ["logging.digest_every=1", "training.epochs=2"]),
        ("interrupted", ["logging.digest_every=1", "--max-time", "0.0001"]),
    )
    path = list(sys.path)
    with contextlib.chdir(folder):
        for name, settings in starts:
            with contextlib.suppress(SystemExit):
                main(["train", "tiny.yaml", "--run-dir", f"runs/{name}", *common, *settings])
    sys.path[:] = path
    sys.modules.pop("tiny_project", None)
    return folder / "runs"


@pytest.fixture
def staged(project):
    """A configuration with three stages."""
    (project / "staged.yaml").write_text(REST + STAGES)
    return "staged.yaml"


@pytest.fixture(scope="session")
def trained_stages(tmp_path_factory):
    """A folder that is filled once with the run of all stages."""
    return tmp_path_factory.mktemp("stages")


@pytest.fixture
def staged_run(functrain, staged, project, trained_stages):
    """The run of all stages, in the folder `runs/staged` of the current directory."""
    if not (trained_stages / "staged").exists():
        assert functrain("train", staged, "--all-stages", "--no-progress")[0] == 0
        shutil.copytree(project / "runs/staged", trained_stages / "staged", symlinks=True)
    else:
        shutil.copytree(trained_stages / "staged", project / "runs/staged", symlinks=True)
    return project / "runs" / "staged"


@pytest.fixture
def runs(trained, project):
    """A copy of these runs, in the folder `runs` of the current directory."""
    shutil.copytree(trained, project / "runs", symlinks=True)
    return project / "runs"


@pytest.fixture
def damage():
    """Overwrite the largest file of a checkpoint with zeros."""

    def damage(checkpoint):
        victim = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        victim.write_bytes(b"\x00" * victim.stat().st_size)

    return damage
