"""The run directory is deleted or renamed under a run, its lock is removed, or the working directory changes."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from loop_helpers import assert_same_bits, make_loader, make_state, quick_fit

import functrain as ft
from functrain.checkpoint import CheckpointWarning, RunLock, RunLockedError, RunLostError
from functrain.foundation.paths import absolute
from functrain.foundation.run_lock import LOCK_FILE


def fit(run_dir: Any, **options: Any) -> ft.FitResult:
    return quick_fit(make_state(), make_loader(), run_dir=run_dir, **{"log_every": 1, "epochs": 2, **options})


def at_step(step: int, do: Any) -> Any:
    @ft.on("after_step")
    def callback(event: ft.Event) -> None:
        if event.state.step == step:
            do()

    return callback


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_run_whose_directory_is_deleted_ends_and_does_not_make_it_again(tmp_path: Path, log_every: int) -> None:
    run_dir = tmp_path / "run"
    delete = at_step(2, lambda: shutil.rmtree(run_dir))
    with pytest.raises(RunLostError, match="was deleted, renamed or replaced while this run was writing to it"):
        fit(run_dir, callbacks=[delete], log_every=log_every)
    assert not run_dir.exists()


def test_a_run_whose_directory_is_renamed_goes_on_under_its_new_name(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"

    def rename() -> None:
        deadline = time.monotonic() + 60  # the save at the first epoch's end is done when its links are there
        while not (old / "checkpoints" / "best").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        old.rename(new)

    with pytest.raises(RunLostError):
        fit(old, callbacks=[at_step(8, rename)])
    assert os.listdir(tmp_path) == ["new"]
    with pytest.warns(CheckpointWarning, match="before it could end in good order"):
        resumed = fit(new)
    assert_same_bits(resumed.state, fit(tmp_path / "whole").state)
    assert (new / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_nothing_is_written_into_the_directory_that_takes_a_deleted_ones_place(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    def replace() -> None:
        run_dir.rename(tmp_path / "moved")
        stack.append(RunLock(run_dir).acquire())

    stack: list[RunLock] = []
    with pytest.raises(RunLostError):
        fit(run_dir, callbacks=[at_step(2, replace)])
    assert os.listdir(run_dir) == [LOCK_FILE]
    stack[0].release()


def test_a_lock_file_that_is_removed_is_made_again(tmp_path: Path) -> None:
    with pytest.warns(CheckpointWarning, match="the lock file .* was removed"):
        result = fit(tmp_path, callbacks=[at_step(2, (tmp_path / LOCK_FILE).unlink)])
    assert result.stopped_by == "epochs"
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_lock_that_another_run_took_meanwhile_ends_the_run(tmp_path: Path) -> None:
    def steal() -> None:
        (tmp_path / LOCK_FILE).unlink()
        stack.append(RunLock(tmp_path).acquire())

    stack: list[RunLock] = []
    with pytest.raises(RunLockedError):
        fit(tmp_path, callbacks=[at_step(2, steal)])
    stack[0].release()


def test_a_change_of_the_working_directory_does_not_move_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rule = ft.optim.early_stopping(patience=1, restore_best=True)
    fit("run", callbacks=[at_step(2, lambda: os.chdir(elsewhere))], early_stopping=rule, tensorboard=True)
    assert os.listdir(elsewhere) == []
    os.chdir(tmp_path)
    whole = fit("whole", early_stopping=rule)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()
    assert whole.history


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fit("~/run", epochs=1)
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
    resumed = fit("~/other", resume="~/run/checkpoints/last")
    assert_same_bits(resumed.state, fit(None).state)
    assert ft.Checkpointer("~/run/checkpoints", read_only=True).names()
    assert absolute("~/x") == tmp_path / "x"
