"""Runs that are killed at random and go on with other ranks.   Usage: rescaled_process.py FOLDER FIRST_SEED COUNT

A schedule is some runs into one folder. All but the last are killed at a random time, by SIGINT, SIGTERM or SIGKILL,
one rank or all. Each has its own number of ranks, strategy, place of the optimizer's state, and way of running steps.
"""

import functools
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from forked_ranks import import_what_runs_need, started
from sharded_process import train

from functrain.distributed import STRATEGIES

RANKS, SIGNALS = (1, 2, 4), (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
LATEST, PATIENCE = 3.0, 30.0  # seconds: of a kill, and until what has not ended after it is ended


class Leg(NamedTuple):
    """A run of a schedule; `signal` 0: it is left alone. `one`: the signal is for the last rank only."""

    ranks: int
    strategy: str
    offload: str | None
    compiled: bool
    signal: int
    one: bool
    after: float


def legs(seed: int) -> list[Leg]:
    """The runs of a schedule."""
    draw = random.Random(seed)
    count = draw.randint(2, 4)
    return [
        Leg(
            draw.choice(RANKS),
            draw.choice(STRATEGIES),
            draw.choice([None, "cpu"]),
            draw.random() < 0.2,
            draw.choice(SIGNALS) if number < count - 1 else 0,
            draw.random() < 0.5,
            draw.uniform(0.1, LATEST),
        )
        for number in range(count)
    ]


def run(folder: Path, leg: Leg) -> list[int]:
    """The exit codes of its ranks."""
    with tempfile.TemporaryDirectory() as store:
        function = functools.partial(
            train, str(folder), leg.strategy, offload=leg.offload, compiled=leg.compiled, epochs=6
        )
        children = started(leg.ranks, function, store)
        if leg.signal:
            time.sleep(leg.after)
            for child in children[-1:] if leg.one else children:
                os.kill(child, leg.signal)  # one that has ended is there until it is waited for
        return ended(children, PATIENCE if leg.signal else 10 * PATIENCE)


def ended(children: list[int], patience: float) -> list[int]:
    """The exit codes; what has not ended in time is ended, as the launcher does."""
    codes: dict[int, int] = {}
    until = time.monotonic() + patience
    while len(codes) < len(children):
        for child in children:
            if child not in codes and (found := os.waitpid(child, os.WNOHANG))[0]:
                codes[child] = os.waitstatus_to_exitcode(found[1])
            elif child not in codes and time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[child] for child in children]


def updates(folder: Path) -> int:
    """How many are in the log."""
    log = folder / "metrics.jsonl"
    return log.read_bytes().count(b'"digest"') if log.exists() else 0


def schedule(folder: Path, seed: int) -> dict[str, object]:
    """Its runs, and whether the log is the one of the run that was left alone."""
    told = []
    for leg in legs(seed):
        codes = run(folder / str(seed), leg)
        told.append({**leg._asdict(), "codes": codes, "updates": updates(folder / str(seed))})
    logs = [(folder / name / "metrics.jsonl").read_bytes() for name in ("alone", str(seed))]
    return {"seed": seed, "equal": logs[0] == logs[1], "legs": told}


if __name__ == "__main__":
    to, first, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    import_what_runs_need()
    run(to / "alone", Leg(1, "ddp", None, False, 0, False, 0.0))
    for each in range(first, first + number):
        print(json.dumps(schedule(to, each)), flush=True)
