"""Runs that are killed, at a random time and in any way, and go on with other ranks: the log is the undisturbed run's.

The log has the digest of the state after every update, and all metrics.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("rescaled_process.py")


def check_schedules(folder: Path, first: int, count: int) -> None:
    command = [sys.executable, str(PROGRAM), str(folder), str(first), str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    found = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120 * (1 + count), check=False
    )
    assert found.returncode == 0, found.stderr
    told = [json.loads(line) for line in found.stdout.splitlines()]
    assert [each["seed"] for each in told] == list(range(first, first + count))
    unequal = [each for each in told if not each["equal"]]
    assert not unequal, (unequal, found.stderr)
    assert all(code == 0 for each in told for code in each["legs"][-1]["codes"])


def test_killed_runs_go_on_with_other_ranks_and_strategies(tmp_path: Path) -> None:
    check_schedules(tmp_path, 1, 2)


@pytest.mark.slow
def test_50_schedules_of_kills_end_with_the_same_bits(tmp_path: Path) -> None:
    check_schedules(tmp_path, 0, 50)
