"""The command under torchrun: one run, one voice."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from functrain.app.config.loading import load_config
from functrain.app.ranks import joined
from functrain.distributed import World


@pytest.fixture
def environments(monkeypatch):
    """What torchrun tells each of two processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    return [{**os.environ, "OMP_NUM_THREADS": "1", **common, "RANK": str(rank)} for rank in range(2)]


def test_two_processes_train_one_run_and_the_first_alone_speaks(project, environments):
    command = [sys.executable, "-m", "functrain", "train", "tiny.yaml"]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for environment in environments
    ]
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    (out, err), silent = said
    assert silent == ("", "")
    assert "device     2 processes, each cpu" in out
    assert [line.split()[0] for line in out.splitlines() if "  0." in line] == ["train", "val", "test"]
    assert [line.split()[1] for line in err.splitlines() if line.startswith("epoch")] == ["1", "2"]
    assert (project / "runs/tiny/test/metrics.json").exists()
    assert (project / "runs/tiny/training_curves.png").exists()
    assert not list(project.rglob("previous-*"))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--json", "--quiet", "--dry-run"])
def test_two_processes_train_stages_with_one_voice(staged, environments, option):
    command = [sys.executable, "-m", "functrain", "train", staged, "--all-stages", option]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for environment in environments
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    (out, err), silent = said
    assert (silent, err) == (("", ""), "")
    assert (out == "") == (option == "--quiet")
    if option == "--json":
        found = [json.loads(line) for line in out.splitlines()]
        assert [event["name"] for event in found if event["event"] == "stage"] == ["one", "two", "three"]
        assert [event["processes"] for event in found if event["event"] == "start"] == [2, 2, 2]
        epochs = [(event["epoch"], event["step"]) for event in found if event["event"] == "epoch"]
        assert len(epochs) == 3 + 2 + 2
    if option == "--dry-run":
        assert out.count("dry run: nothing was written") == 3


def test_other_ranks_say_who_they_are_when_something_is_wrong(functrain, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    code, out, err = functrain("train", "nope.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("functrain (rank 1): error: there is no configuration file nope.yaml")


@pytest.mark.parametrize("arguments", [("sweep", "tiny.yaml", "seed=1,2"), ("summary", "tiny.yaml"), ("evaluate", "r")])
def test_commands_that_share_no_work_say_so_once(functrain, project, monkeypatch, arguments):
    before = sorted(project.iterdir())
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in (
        ("0", f"functrain: error: {arguments[0]} runs in one process; start it without torchrun\n"),
        ("1", ""),
    ):
        monkeypatch.setenv("RANK", rank)
        assert functrain(*arguments) == (2, "", said)
    assert sorted(project.iterdir()) == before


def test_one_process_is_a_world_of_its_own(project):
    with joined(load_config(Path("tiny.yaml"), trust=True)) as world:
        assert world == World(0, 1)
