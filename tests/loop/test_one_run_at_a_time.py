"""A run directory belongs to one run at a time."""

import subprocess
import sys
from pathlib import Path

import pytest
from loop_helpers import make_loader, make_state, quick_fit

import functrain as ft
from functrain.checkpoint import CheckpointWarning, RunLockedError


def test_a_second_run_in_the_directory_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    refusals = []

    @ft.on("before_epoch")
    def second(event: ft.Event) -> None:
        before = (tmp_path / "metrics.jsonl").read_text()
        for resume in ("auto", "never"):
            with pytest.raises(RunLockedError, match=r"another run is writing to .*this very process") as refusal:
                quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path, resume=resume)
            refusals.append(refusal)
        assert (tmp_path / "metrics.jsonl").read_text() == before

    quick_fit(make_state(), make_loader(), epochs=2, run_dir=tmp_path, callbacks=[second])
    assert len(refusals) == 4
    assert not (tmp_path / ".functrain-lock").exists()
    assert not (tmp_path / "previous-1").exists()


def test_a_run_that_was_killed_is_mentioned_by_the_next(tmp_path: Path) -> None:
    program = """
import os, sys
from functrain.checkpoint import RunLock
RunLock(sys.argv[1]).acquire()
os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 1
    with pytest.warns(CheckpointWarning, match=r"the last run in .* \(process .* on host .*\) was killed"):
        quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path)
    assert quick_fit(make_state(), make_loader(), epochs=2, run_dir=tmp_path).state.epoch == 2
