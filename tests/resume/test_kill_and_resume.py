"""Real processes, killed by real signals at random moments: the bits of the end must not tell."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from functrain.checkpoint import read_arrays, read_info

PROGRAM = Path(__file__).with_name("training_process.py")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGKILL: -9}

SETTINGS = {
    "eager, windows of 3, 2 workers": ("accumulate=3", "workers=2"),
    "compiled, 2 workers": ("compile=true", "workers=2"),
}
MORE_SETTINGS = {
    "eager": (),
    "compiled and donated": ("compile=true", "donate=true"),
    "traced, windows of 3, short tail": ('backend="aot_eager"', "compile=true", "accumulate=3", 'tail="short"'),
    "fp16": ('precision="fp16"',),
}


def start(run_dir: Path, options: Sequence[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(run_dir), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> int:
    _, errors = process.communicate(timeout=300)
    if process.returncode not in CODES.values():
        assert process.returncode == 0, errors
    return process.returncode


def kill_after(process: subprocess.Popen[str], batches: int, number: signal.Signals) -> None:
    """Send the signal while the process is at work on its `batches`-th micro-batch since it started."""
    assert process.stdout is not None
    for _ in range(batches):
        assert process.stdout.readline(), process.communicate()[1]
    process.send_signal(number)


def outcome(run_dir: Path) -> dict[str, object]:
    """Everything a run leaves behind that must not depend on its having been killed."""
    last, best = (run_dir / "checkpoints" / name for name in ("last", "best"))
    return {
        "state": {
            group: {path: _bits(leaf) for path, leaf in leaves.items()} for group, leaves in read_arrays(last).items()
        },
        "best": {
            group: {path: _bits(leaf) for path, leaf in leaves.items()} for group, leaves in read_arrays(best).items()
        },
        "best metric": read_info(best).metric,
        "log": (run_dir / "metrics.jsonl").read_text(),
        "table": (run_dir / "metrics.csv").read_text(),
    }


def _bits(leaf: object) -> object:
    import torch

    if isinstance(leaf, torch.Tensor):
        return leaf.dtype, tuple(leaf.shape), leaf.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return leaf


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
    process.send_signal(signal.SIGUSR1)
    assert finish(process) == 138
    assert read_info(tmp_path / "run" / "checkpoints" / "last").step >= 1
    assert finish(start(tmp_path / "run", ("sleep=0", "epochs=1"))) == 0
