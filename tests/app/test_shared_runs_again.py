"""Runs that several processes trained, trained again by one: `at`, `branch`, `replay`, `hunt` and `reproduce`."""

import os
import subprocess
import sys

import pytest

from functrain.app.runs import sharing
from functrain.checkpoint import read_info

EXACT = ["distributed.reduction=exact", "distributed.shards=2", "distributed.strategy=zero3", "checkpoint.keep=9"]
NEITHER = ["--no-progress", "training.threads=1"]


@pytest.fixture
def run(functrain, project):
    """A run with exact sums, trained by one process, whose bits are those of several."""
    arguments = ["train", "tiny.yaml", *EXACT, *NEITHER, "--run-dir", "runs/tiny", "checkpoint.save_every=2"]
    assert functrain(*arguments)[0] == 0
    return project / "runs" / "tiny"


def test_exact_sums_are_rebuilt_bit_for_bit(functrain, run, project):
    steps = read_info(run / "checkpoints" / "last").step
    code, out, err = functrain("at", "runs/tiny", "3", "--no-progress")
    assert (code, err) == (0, "")
    code, out, err = functrain("replay", "runs/tiny/checkpoints/step-00000002", "--steps", str(steps - 2))
    assert (code, err) == (0, "")
    assert "confirmed bit for bit" in out
    code, out, err = functrain("reproduce", "runs/tiny", "--no-progress")
    assert (code, err) == (0, "")
    assert "reproduced bit for bit" in out
    code, out, err = functrain("branch", "runs/tiny@3", "--no-progress")
    assert (code, err) == (0, "")
    assert functrain("diff", "runs/tiny-at-3", "runs/tiny")[0] == 0


def test_the_bits_are_those_of_sums_in_a_tree(functrain, run, monkeypatch):
    """Without the exchange the same run is not confirmed."""
    monkeypatch.setattr(sharing, "shard", lambda state, *_, **__: state)
    code, out, _ = functrain("replay", "runs/tiny/checkpoints/step-00000002", "--steps", "2")
    assert (code, "NOT confirmed" in out) == (1, True)


def test_a_value_that_is_not_finite_is_found_in_a_part_of_a_batch(functrain, run):
    code, out, err = functrain("hunt", "runs/tiny", "--steps", "2")
    assert (code, err) == (0, "")
    assert "all is finite in 2 steps" in out


def by_two(project, run, *arguments):
    command = [sys.executable, "-m", "functrain", "train", "tiny.yaml", "--nproc", "2", "--run-dir", run, *arguments]
    same_threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=same_threads)
    assert done.returncode == 0, done.stderr


def test_what_two_processes_trained_one_trains_again_if_its_sums_are_exact(functrain, project):
    by_two(project, "runs/exact", *EXACT, *NEITHER)
    code, out, err = functrain("replay", "runs/exact")
    assert (code, err) == (0, "")
    assert "confirmed bit for bit" in out
    code, _, err = functrain("at", "runs/exact", "4", "--no-progress")
    assert (code, err) == (0, "")
    by_two(project, "runs/fast", *NEITHER)
    for command in (
        ["replay", "runs/fast"],
        ["at", "runs/fast", "4"],
        ["hunt", "runs/fast"],
        ["reproduce", "runs/fast"],
    ):
        code, _, err = functrain(*command)
        assert code == 2
        assert err.startswith(
            "functrain: error: 2 processes trained this run with distributed.reduction: fast, and one process adds"
        ), err
