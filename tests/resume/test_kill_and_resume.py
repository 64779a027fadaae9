"""Real processes, killed by real signals at random moments: the bits of the end must not tell."""

import random
import signal
from pathlib import Path

import pytest
from killing import CODES, MORE_SETTINGS, SETTINGS, finish, kill_after, outcome, start

from functrain.checkpoint import read_info


@pytest.mark.parametrize("setting", [*SETTINGS, *(pytest.param(s, marks=pytest.mark.slow) for s in MORE_SETTINGS)])
def test_a_killed_run_ends_with_the_bits_of_an_uninterrupted_one(setting: str, tmp_path: Path) -> None:
    options = (SETTINGS | MORE_SETTINGS)[setting]
    assert finish(start(tmp_path / "whole", (*options, "sleep=0"))) == 0
    whole = outcome(tmp_path / "whole")

    dice = random.Random(setting)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        process = start(tmp_path / "killed", options)
        # At least 6 micro-batches, so that a SIGKILL comes after a checkpoint or costs at most a little.
        kill_after(process, dice.randint(6, 15), number)
        assert finish(process) == CODES[number]
    assert finish(start(tmp_path / "killed", (*options, "sleep=0"))) == 0
    assert outcome(tmp_path / "killed") == whole


def test_two_signals_end_at_once_and_leave_a_valid_checkpoint(tmp_path: Path) -> None:
    process = start(tmp_path / "run", ("sleep=2", "save_every=1"))
    kill_after(process, 3, signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 143
    assert read_info(tmp_path / "run" / "checkpoints" / "last").step >= 1
    assert finish(start(tmp_path / "run", ("sleep=0", "epochs=1"))) == 0
