"""A run of stages that is killed in its middle ends with the bits of the run that was not."""

import os
import signal
import time

import pytest
from stage_kills import CONFIG, PATIENCE, STAGES, differing, finish, kills, outcome, start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
SHORT = CONFIG.replace("epochs: 4", "epochs: 2").replace("save_every: 5", "save_every: 2")


def test_a_run_that_is_killed_in_its_second_stage_ends_with_the_same_bits(tmp_path):
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    finish(folders[0], SHORT)
    process = start(folders[1], SHORT)
    run = folders[1] / "runs" / "killed"
    deadline = time.monotonic() + PATIENCE
    while not list((run / STAGES[1] / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (run / STAGES[2]).exists()
    first = {path: path.stat().st_mtime_ns for path in (run / STAGES[0]).rglob("*") if path.is_file()}
    finish(folders[1], SHORT)
    assert differing(outcome(folders[0]), outcome(folders[1])) == []
    assert {path: path.stat().st_mtime_ns for path in first} == first  # it is not repeated


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_no_bit():
    landed, _, wrong = kills(50, seed=1)
    assert (landed.total(), wrong) == (50, [])
