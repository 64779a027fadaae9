"""Checkpoints that the ranks of a run write in pieces: real processes, which are killed, too."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from functrain.checkpoint import verify_checkpoints
from functrain.checkpoint.row_store import folder_of

PROGRAM = Path(__file__).with_name("pieces_process.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def run(*runs: str) -> tuple[list[list[int]], str]:
    """The exit codes of each run's ranks, and what they printed."""
    found = subprocess.run(
        [sys.executable, str(PROGRAM), *runs], env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1]), found.stderr


def writers(checkpoints: Path) -> list[set[int]]:
    """The ranks that wrote rows of the optimizer's state, by checkpoint."""
    return [
        {rank for rank in range(4) if (path / "opt_state" / folder_of(rank)).is_dir()}
        for path in sorted(checkpoints.glob("step-*"))
    ]


def test_a_run_goes_on_from_pieces_with_other_ranks_and_another_strategy(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    runs = [f"2,{together},zero3,1", f"1,{together},ddp,2", f"2,{together},zero1,3", f"1,{alone},zero3,3"]
    codes, errors = run(*runs)
    assert codes == [[0, 0], [0], [0, 0], [0]], errors
    logs = [(path / "metrics.jsonl").read_bytes() for path in (alone, together)]
    assert logs[0] == logs[1]
    assert b'"digest"' in logs[0]
    assert writers(together / "checkpoints") == [{0, 1}, set(), {0, 1}]
    assert verify_checkpoints(together / "checkpoints").ok


def test_a_rank_that_is_killed_or_has_a_full_disk_in_a_save_leaves_no_half_checkpoint(tmp_path: Path) -> None:
    killed, full, blind = tmp_path / "killed", tmp_path / "full", tmp_path / "blind"
    codes, errors = run(
        f"2,{killed},zero3,2,kill", f"2,{full},zero1,2,full", f"2,{blind},zero3,1,blind", f"2,{blind},zero3,2,blind"
    )
    assert codes[0][1] == -9
    assert codes[0][0] > 0
    assert codes[1] == [1, 1]
    assert codes[2:] == [[0, 0], [1, 1]], errors
    assert "process 1 has ended, or does not answer" in errors
    assert errors.count("process 1 could not write its rows: [Errno 28] No space left on device") >= 2
    assert "process 1 cannot see" in errors
    seconds = [float(found) for found in re.findall(r"rank \d ended after ([\d.]+) s", errors)]
    assert len(seconds) == 5
    assert max(seconds) < 10
    for directory in (killed, full):
        report = verify_checkpoints(directory / "checkpoints")
        assert report.ok
        assert len(report.checkpoints) == 1
    assert writers(blind / "checkpoints") == [set()]
    assert verify_checkpoints(blind / "checkpoints").ok
    assert "where there are checkpoints to go on from: give a run directory that all processes see" in errors
    # The next run sweeps up, and goes on.
    codes, errors = run(f"2,{killed},zero3,2")
    assert codes == [[0, 0]], errors
    assert not list((killed / "checkpoints").glob(".tmp*"))
    assert len(verify_checkpoints(killed / "checkpoints").checkpoints) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_runs_that_are_killed_at_any_time_go_on_with_their_bits(tmp_path: Path, seed: int) -> None:
    """The killed runs have 2 or 4 ranks and some strategy; what they leave is whole, and the log is that of one run."""
    draws, alone, killed = random.Random(seed), tmp_path / "alone", tmp_path / "killed"
    assert run(f"1,{alone},ddp,4")[0] == [[0]]
    for _ in range(4):
        ranks, strategy = draws.choice([2, 4]), draws.choice(["zero1", "zero2", "zero3"])
        run(f"{ranks},{killed},{strategy},4,{draws.uniform(0.5, 4):.2f}")
        if (killed / "checkpoints").is_dir():
            assert verify_checkpoints(killed / "checkpoints").ok
    codes, errors = run(f"4,{killed},zero3,4")
    assert codes == [[0] * 4], errors
    assert (killed / "metrics.jsonl").read_bytes() == (alone / "metrics.jsonl").read_bytes()
    assert not list((killed / "checkpoints").glob(".tmp*"))


def test_no_rank_holds_more_than_its_rows_when_it_saves_restores_or_is_digested(tmp_path: Path) -> None:
    """A state of 192 MiB on 2 ranks; what one process alone has saved is read in parts, too."""
    command = [sys.executable, str(PROGRAM.with_name("memory_process.py")), str(tmp_path), "2", "4", "48"]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    for rank in range(2):
        measured = json.loads((tmp_path / f"memory.{rank}").read_text())
        grown = {name: each["bytes"] / 2**20 for name, each in measured.items()}
        own, buffers = 96, 40  # reads and messages of 4, tensorstore's threads, and what the allocator keeps
        assert grown["save"] < buffers, grown
        assert grown["restore"] < own + buffers, grown
        assert grown["restore of another's"] < own + buffers, grown
        assert grown["stream"] < buffers, grown
