"""64 members, killed by SIGKILL at random moments and started again, end with the state and log of a run in peace."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import functrain as ft

HERE = Path(__file__).parent
NAMES = ("metrics.jsonl", "metrics.csv")


def start(run_dir):
    paths = [str(HERE.parents[1]), str(HERE.parent / "helpers"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, str(HERE / "killed_process.py"), str(run_dir)], env=environment)


def end_of(run_dir):
    checkpoint = max((run_dir / "checkpoints").glob("step-*"))
    return [(run_dir / name).read_bytes() for name in NAMES], checkpoint.name


def digest_of(run_dir):
    import json

    return json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])["digest"]


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_members_end_as_in_peace(kills, tmp_path):
    peace = tmp_path / "peace"
    began = time.perf_counter()
    assert start(peace).wait() == 0
    whole = time.perf_counter() - began
    draw, done, run = random.Random(kills), 0, 0
    while done < kills:
        run_dir = tmp_path / f"killed-{run}"
        while done < kills:
            process = start(run_dir)
            try:
                process.wait(draw.uniform(0.4, 1.0) * whole)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            if process.wait() == 0:
                break
            done += 1
        assert start(run_dir).wait() == 0
        assert end_of(run_dir) == end_of(peace)
        assert digest_of(run_dir) == digest_of(peace)
        run += 1
    assert ft.checkpoint.Checkpointer(peace / "checkpoints", read_only=True).infos()
