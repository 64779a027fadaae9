"""Kill the driver and the workers of a sweep at random moments, compare all results, write a table to docs/sweeps.md.

    python tests/resume/sweep_kills.py                        a sweep of 24 members, 100 kills
    python tests/resume/sweep_kills.py --sweeps 1 --kills 10 --members 6 --dry

A sweep is killed so many times with SIGKILL: half of the kills end its driver, half one of its members' processes. Then
it is started until it ends well. What is compared with a sweep that was not killed: sweep.csv; the arrays of the last
and the best checkpoint of each member, its logs, its results on the test split. Nothing of a finished member may change
afterwards, and after the driver's end no process of it may be left. The seed decides when kills come; what they find is
chance.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch
from killing import arrays_of

from functrain.app.sweeps.results import read_mark
from functrain.loop.output.records import read_records

PAGE = Path(__file__).parents[2] / "docs" / "sweeps.md"
BEGIN, END = "<!-- table of killed sweeps: written by tests/resume/sweep_kills.py -->", "<!-- end of the table -->"
BETWEEN = 12.0  # seconds between two kills, on average; some are much longer, so that every sweep comes to its end
PATIENCE = 60.0  # seconds in which an orphan must have ended

CONFIG = """
name: killed
model: {name: digits_cnn, channels: 4}
data: {name: digits}
objective: {name: classification}
optimizer: {name: adamw, lr: 1e-2}
training: {epochs: 4, ema_decay: 0.9}
compile: false
checkpoint: {keep: 2}
"""
SEARCHED = ["optimizer.lr=1e-2,3e-3,1e-3", "model.dropout=0.1,0.4", "seed=0,1", "data.batch_size=32,64"]


def command(folder: Path, members: int) -> list[str]:
    """The sweep's command line."""
    (folder / "killed.yaml").write_text(CONFIG)
    searched = SEARCHED[: {24: 4, 12: 3, 6: 2, 3: 1}[members]]
    given = ["sweep", str(folder / "killed.yaml"), *searched, "--sweep-dir", str(folder / "sweep"), "--jobs", "2"]
    return [sys.executable, "-m", "functrain", *given]


def start(folder: Path, members: int) -> "subprocess.Popen[bytes]":
    """Start the sweep."""
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(command(folder, members), stdout=output, stderr=output, stdin=subprocess.DEVNULL)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The processes that train members of a sweep."""
    return [each for each in psutil.process_iter() if _belongs(each, folder)]


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "--run-dir" in words and any(word.startswith(f"{folder}/sweep/") for word in words)


def finished(folder: Path) -> dict[Path, int]:
    """Every file of the finished members, and when it was written."""
    done = [run for run in (folder / "sweep").glob("*=*") if read_mark(run) is not None]
    return {path: path.lstat().st_mtime_ns for run in done for path in run.rglob("*") if path.is_file()}


def outcome(run: Path) -> dict[str, object]:
    """What a member leaves behind."""
    steps = [record["step"] for record in read_records(run / "metrics.jsonl") if record["kind"] == "step"]
    assert len(set(steps)) == len(steps), "a step is in the log twice"
    texts = ("metrics.jsonl", "metrics.csv", "test/metrics.json")
    last, best = ((run / "checkpoints" / name) for name in ("last", "best"))
    return {"last": arrays_of(last), "best": arrays_of(best)} | {name: (run / name).read_text() for name in texts}


def killed(folder: Path, members: int, kills: int, dice: random.Random) -> tuple[Counter[str], list[str]]:
    """Kill a sweep so many times, and let it end; what was hit, and what went wrong."""
    hit: Counter[str] = Counter()
    wrong: list[str] = []
    known: dict[Path, int] = {}
    driver = start(folder, members)
    while True:
        if hit.total() < kills and dice.random() < 0.8:  # else it may hit a driver that plans
            _wait_for_members(driver, folder)
        wait = dice.expovariate(1 / BETWEEN)
        try:
            driver.wait(wait if hit.total() < kills else None)
        except subprocess.TimeoutExpired:
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


def _wait_for_members(driver: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait until members are at work, or the driver has ended."""
    while driver.poll() is None and not processes_of(folder):
        time.sleep(0.2)


def _kill(
    driver: "subprocess.Popen[bytes]", folder: Path, dice: random.Random, hit: Counter[str], wrong: list[str]
) -> None:
    """Kill the driver, or one of the members' processes."""
    of_members = processes_of(folder)
    if of_members and dice.random() < 0.5:
        dice.choice(of_members).kill()
        hit["a member"] += 1
        return
    driver.kill()
    driver.wait()
    hit["the driver, while members trained" if of_members else "the driver, before or between members"] += 1
    if dice.random() < 0.5:  # else the next driver meets them
        _, left = psutil.wait_procs(of_members, timeout=PATIENCE)
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
    parser.add_argument("--sweeps", type=int, default=1)
    parser.add_argument("--kills", type=int, default=100, help="of each sweep")
    parser.add_argument("--members", type=int, default=24, choices=(3, 6, 12, 24))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, do not write the page")
    given = parser.parse_args()
    rows, lost = [], 0
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place, "whole")
        whole.mkdir()
        assert start(whole, given.members).wait() == 0, (whole / "output").read_text()
        for number in range(given.sweeps):
            folder = Path(place, f"killed-{number}")
            folder.mkdir()
            began = time.monotonic()
            hit, wrong = killed(folder, given.members, given.kills, random.Random(f"{given.seed}/{number}"))
            wrong += compare(whole, folder)
            rows.append((number, hit, wrong))
            lost += bool(wrong)
            print(f"sweep {number}: {dict(hit)} in {time.monotonic() - began:.0f} s; {wrong or 'equal'}", flush=True)
            shutil.rmtree(folder)
        assert not processes_of(Path(place))
    lines = table(rows, given)
    print("\n".join(lines))
    if not given.dry:
        text = PAGE.read_text()
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        PAGE.write_text("\n".join([before, *lines, after]))
    return int(lost > 0)


def table(rows: list[tuple[int, Counter[str], list[str]]], given: argparse.Namespace) -> list[str]:
    """As the page shows it."""
    moments = list(dict.fromkeys(moment for _, hit, _ in rows for moment in sorted(hit)))
    total = sum(hit.total() for _, hit, _ in rows)
    return [
        f"Of {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, torch {torch.__version__}, seed {given.seed}: "
        f"**{total} kills of {len(rows)} sweep{'s' * (len(rows) > 1)} of {given.members} members; "
        f"{sum(bool(wrong) for _, _, wrong in rows)} sweeps differ.**",
        "",
        f"| sweep | {' | '.join(moments)} | result |",
        f"|---|{'---:|' * len(moments)}---|",
        *(
            f"| {number + 1} | {' | '.join(str(hit[moment]) for moment in moments)} | {'; '.join(wrong) or 'equal'} |"
            for number, hit, wrong in rows
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
