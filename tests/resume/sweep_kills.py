"""Kill the driver and the members of sweeps at random moments, compare all results, write a table to docs/sweeps.md.

    python tests/resume/sweep_kills.py                          sweeps of 24 members, 100 kills
    python tests/resume/sweep_kills.py --kills 10 --members 6   fewer
    python tests/resume/sweep_kills.py --minutes 10 --dry       no more kills after this time; print, write no page

About half of the kills (SIGKILL) end a driver, half one of its members' processes. When a sweep has ended well it is
compared with one that was not killed, and the next one begins, until there were so many kills. What is compared:
sweep.csv; the arrays of the last and the best checkpoint of each member, its logs, its results on the test split.
Nothing of a finished member may change afterwards, and after the driver's end no process of it may be left. The seed
decides when kills come; what they find is chance. The name of a checkpoint may differ: a driver's end interrupts its
members, and one that is interrupted after its last update saves that step twice, the second time as step-N.r1.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch
from killing import arrays_of

from functrain.app.runs.outcome import RUNNING, read_outcome
from functrain.app.sweeps.results import read_mark
from functrain.loop.output.records import read_records

PAGE = Path(__file__).parents[2] / "docs" / "sweeps.md"
BEGIN, END = "<!-- table of killed sweeps: written by tests/resume/sweep_kills.py -->", "<!-- end of the table -->"
LOOKS = 0.1  # seconds between two looks at the processes
PATIENCE = 60.0  # seconds in which an orphan must have ended
# What a kill waits for, how often that is drawn, and the mean of the seconds that it waits then.
MOMENTS = (("a member trains", 0.6, 1.0), ("members are there", 0.25, 3.0), ("nothing", 0.15, 2.0))
STARTS, TRAINS, ENDS = "a member, while it started", "a member, while it trained", "a member, after its last update"
ALONE, WITH_MEMBERS = "the driver, before or between members", "the driver, while members were at work"

CONFIG = """
name: killed
model: {name: digits_cnn, channels: 2}
data: {name: digits}
objective: {name: classification}
optimizer: {name: adamw, lr: 1e-2}
training: {epochs: 4, ema_decay: 0.9, threads: 1}
compile: false
checkpoint: {keep: 2, save_every: 10}
sweep:
  jobs: 2
  axes:
"""
AXES = {
    "optimizer.lr": "[1e-2, 3e-3, 1e-3]",
    "model.dropout": "[0.1, 0.4]",
    "seed": "[0, 1]",
    "data.batch_size": "[32, 64]",
}


def start(folder: Path, members: int) -> "subprocess.Popen[bytes]":
    """Start the sweep."""
    count = {24: 4, 12: 3, 6: 2, 3: 1}[members]
    axes = "".join(f"    {name}: {values}\n" for name, values in list(AXES.items())[:count])
    (folder / "killed.yaml").write_text(CONFIG + axes)
    command = ["sweep", str(folder / "killed.yaml"), "--sweep-dir", str(folder / "sweep")]
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "functrain", *command], stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )


def members_of(folder: Path) -> dict[psutil.Process, Path]:
    """The processes that train members of a sweep, and their runs."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, ValueError, IndexError):
            words = process.cmdline()
            run = Path(words[words.index("--run-dir") + 1])
            if run.is_relative_to(folder):
                found[process] = run
    return found


def doing(process: psutil.Process, run: Path) -> str:
    """What a member's process is at."""
    try:
        began = (run / "status.json").stat().st_mtime > process.create_time()
    except (OSError, psutil.Error):
        return STARTS
    return STARTS if not began else TRAINS if read_outcome(run).get("status") == RUNNING else ENDS


def finished(folder: Path) -> dict[Path, int]:
    """Every file of the finished members, and when it was written."""
    done = [run for run in (folder / "sweep").glob("*=*") if read_mark(run) is not None]
    return {path: path.lstat().st_mtime_ns for run in done for path in run.rglob("*") if path.is_file()}


def outcome(run: Path) -> dict[str, object]:
    """What a member leaves behind."""
    steps = [record["step"] for record in read_records(run / "metrics.jsonl") if record["kind"] == "step"]
    assert len(set(steps)) == len(steps), "a step is in the log twice"
    texts = ("metrics.jsonl", "metrics.csv")
    results = re.sub(r'("checkpoint": "step-\d+)\.r\d+"', r'\1"', (run / "test" / "metrics.json").read_text())
    last, best = ((run / "checkpoints" / name) for name in ("last", "best"))
    found = {"last": arrays_of(last), "best": arrays_of(best), "test/metrics.json": results}
    return found | {name: (run / name).read_text() for name in texts}


def killed(folder: Path, members: int, most: int, until: float, dice: random.Random) -> tuple[Counter[str], list[str]]:
    """Kill a sweep until it ends well; what was hit, and what went wrong.

    Args:
        folder: of the sweep.
        members: how many it has.
        most: kills.
        until: when the last kill may come, in seconds of `time.monotonic`.
        dice: decides when.
    """
    hit: Counter[str] = Counter()
    wrong: list[str] = []
    known: dict[Path, int] = {}
    driver = start(folder, members)
    while True:
        kills_on = hit.total() < most and time.monotonic() < until
        if not kills_on:
            driver.wait()
        elif _survives_until_a_moment(driver, folder, dice):
            _kill(driver, folder, dice, hit, wrong)
        now = finished(folder)
        wrong += [f"{path} was written again" for path, when in known.items() if now.get(path) != when]
        known = now
        if driver.poll() is None:
            continue
        if driver.returncode == 0:
            return hit, wrong
        if driver.returncode not in (1, -signal.SIGKILL):
            return hit, [*wrong, f"ended with {driver.returncode}: {(folder / 'output').read_text()[-2000:]}"]
        driver = start(folder, members)


def _survives_until_a_moment(driver: "subprocess.Popen[bytes]", folder: Path, dice: random.Random) -> bool:
    """Wait for the moment of a kill; False if the driver has ended before."""
    ((what, _, mean),) = dice.choices(MOMENTS, [weight for _, weight, _ in MOMENTS])
    while what != "nothing" and driver.poll() is None:
        states = [doing(process, run) for process, run in members_of(folder).items()]
        if TRAINS in states or (states and what == "members are there"):
            break
        time.sleep(LOOKS)
    with suppress(subprocess.TimeoutExpired):
        driver.wait(dice.expovariate(1 / mean))
        return False
    return True


def _kill(
    driver: "subprocess.Popen[bytes]", folder: Path, dice: random.Random, hit: Counter[str], wrong: list[str]
) -> None:
    """Kill the driver, or one of the members' processes."""
    at_work = members_of(folder)
    if at_work and dice.random() < 0.5:
        process = dice.choice(list(at_work))
        hit[doing(process, at_work[process])] += 1
        process.kill()
        return
    driver.kill()
    driver.wait()
    hit[WITH_MEMBERS if at_work else ALONE] += 1
    if dice.random() < 0.5:  # else the next driver meets them
        _, left = psutil.wait_procs(list(at_work), timeout=PATIENCE)
        wrong += [f"process {each.pid} trains on after its driver" for each in left]


def compare(whole: Path, other: Path) -> list[str]:
    """What differs between two sweeps."""
    names, others = ({run.name for run in (each / "sweep").glob("*=*")} for each in (whole, other))
    wrong = [f"other members: {sorted(names ^ others)}"] if names != others else []
    if (whole / "sweep" / "sweep.csv").read_bytes() != (other / "sweep" / "sweep.csv").read_bytes():
        wrong.append("other sweep.csv")
    for name in sorted(names & others):
        one, two = (outcome(each / "sweep" / name) for each in (whole, other))
        wrong += [f"{name}: other {part}" for part in one if one[part] != two[part]]
    return wrong


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of all sweeps together")
    parser.add_argument("--members", type=int, default=24, choices=(3, 6, 12, 24), help="of each sweep")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no more kills after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, do not write the page")
    given = parser.parse_args()
    hit, wrong, sweeps, began = Counter[str](), list[str](), 0, time.monotonic()
    until = began + 60 * given.minutes
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place, "whole")
        whole.mkdir()
        assert start(whole, given.members).wait() == 0, (whole / "output").read_text()
        while hit.total() < given.kills and time.monotonic() < until:
            folder = Path(place, f"killed-{sweeps}")
            folder.mkdir()
            dice, rest = random.Random(f"{given.seed}/{sweeps}"), given.kills - hit.total()
            found, problems = killed(folder, given.members, rest, until, dice)
            problems += compare(whole, folder)
            hit += found
            sweeps += 1
            wrong += [f"sweep {sweeps}: {problem}" for problem in problems]
            print(f"{hit.total()} kills after {time.monotonic() - began:.0f} s; {problems or 'equal'}", flush=True)
            shutil.rmtree(folder)
        assert not members_of(Path(place))
    lines = table(hit, sweeps, wrong, given)
    print("\n".join([*lines, *wrong]))
    if not given.dry:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text("\n".join([before + BEGIN, *lines, END + rest.partition(END)[2]]))
    return int(bool(wrong))


def table(hit: Counter[str], sweeps: int, wrong: list[str], given: argparse.Namespace) -> list[str]:
    """As the page shows it."""
    differ = len({problem.partition(":")[0] for problem in wrong})
    return [
        f"{hit.total()} kills (SIGKILL at a random moment, seed {given.seed}) of {sweeps} sweep{'s' * (sweeps > 1)} "
        f"of {given.members} members, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, torch {torch.__version__}:",
        "",
        "| killed | kills |",
        "|---|---:|",
        *(f"| {what} | {hit[what]} |" for what in (STARTS, TRAINS, ENDS, ALONE, WITH_MEMBERS)),
        "",
        f"Sweeps that differ from the one that was not killed: {differ}.",
    ]


if __name__ == "__main__":
    sys.exit(main())
