"""Start real training processes, kill them, and compare what they leave: for the tests and the table of kills."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from functrain.checkpoint import read_arrays, read_info

PROGRAM = Path(__file__).with_name("training_process.py")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGKILL: -9}

SETTINGS = {
    "eager, windows of 3, 2 workers": ("accumulate=3", "workers=2"),
    "compiled, 2 workers": ("compile=true", "workers=2"),
    "fp16 with overflows, own state_dict": ('precision="fp16"', "overflow=true", 'loader="stateful"'),
}
MORE_SETTINGS = {
    "eager, functrain's loader, 2 workers": ('loader="functrain"', "workers=2"),
    "compiled and donated": ("compile=true", "donate=true"),
    "compiled, windows of 3, own state_dict": ("compile=true", "accumulate=3", 'loader="stateful"'),
    "traced, windows of 3, short tail": ('backend="aot_eager"', "compile=true", "accumulate=3", 'tail="short"'),
    "bf16, windows of 3, dropped tail": ('precision="bf16"', "accumulate=3", 'tail="drop"'),
    "fp16 with overflows, windows of 3": ('precision="fp16"', "overflow=true", "accumulate=3"),
    "plateau, early stopping": ("plateau=true",),
    "schedule-free": ("schedule_free=true",),
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
    if isinstance(leaf, torch.Tensor):
        return leaf.dtype, tuple(leaf.shape), leaf.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return leaf


def kill_at_any_time(process: subprocess.Popen[str], seconds: float, number: signal.Signals) -> None:
    """Send the signal so long after the first micro-batch, whatever the process does then: train, evaluate, save."""
    assert process.stdout is not None
    assert process.stdout.readline(), process.communicate()[1]
    time.sleep(seconds)
    process.send_signal(number)


def run_with_kills(run_dir: Path, options: Sequence[str], kills: Sequence[signal.Signals], dice: random.Random) -> int:
    """Kill a run at random moments, then let it end; the number of kills that found it at work."""
    landed = 0
    for number in kills:
        process = start(run_dir, options)
        if dice.random() < 0.5:
            kill_after(process, dice.randint(1, 9), number)
        else:
            kill_at_any_time(process, dice.uniform(0.0, 0.4), number)
        landed += finish(process) == CODES[number]
    assert finish(start(run_dir, (*options, "sleep=0"))) == 0
    return landed
