"""Kill training runs some hundred times, compare bits, and write the tables of docs/resume.md.

    python tests/resume/kill_table.py                     all settings, in forked and in fresh interpreters
    python tests/resume/kill_table.py --fresh             in fresh interpreters only
    python tests/resume/kill_table.py --only bf16 --dry     some; print, do not write the page

The seed is in the table; the same seed kills the same settings with the same signals at the same moments (the times of
the kills that are not aimed are drawn from it, too; what they find is chance). With `--results FILE` it goes on where
it was stopped: what is in the file is not done again.
"""

import argparse
import json
import os
import queue
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from killing import CODES, Fresh, Kill, Parent, Starter, differing, kill, outcome, random_kill, to_the_end
from moments import FIRST, LAST, WHILE_TRAINING
from settings import fresh_settings, moments_of, name_of, options_of, settings

PAGE = Path(__file__).parents[2] / "docs" / "resume.md"
FORKED, FRESH = "forked", "fresh"
BEGIN, END = "<!-- {} kill table: written by make kill-table -->", "<!-- end of the {} kill table -->"
AT_A_RANDOM_TIME = "at a random time"
SECONDS = 3.0  # a run's length, about, for the kills at a random time
RUNS = {FORKED: 2, FRESH: 1}  # killed runs of each setting


COLD = "compiled, nothing in the store"


@dataclass(frozen=True)
class Job:
    """A setting, and the kills of each of its runs."""

    name: str
    options: dict[str, object]
    runs: list[list[Kill]]


Record = dict[str, object]  # of a killed run: setting, kills, landed, reason


def plan(
    options: Mapping[str, object], planned: Counter[tuple[str, signal.Signals]], dice: random.Random
) -> list[Kill]:
    """The kills of one run, in the order of its course: the moments and signals that had the fewest so far."""
    if options.get("cold"):
        return while_compiling(dice)
    kills = []
    for stage in (FIRST, WHILE_TRAINING, WHILE_TRAINING, LAST | WHILE_TRAINING):
        moments = [AT_A_RANDOM_TIME, *moments_of(options, stage)]
        pairs = [(moment, number) for moment in moments for number in CODES]
        fewest = min(planned[pair] for pair in pairs)
        moment, number = pair = dice.choice([pair for pair in pairs if planned[pair] == fewest])
        planned[pair] += 1
        aimed = "" if moment == AT_A_RANDOM_TIME else moment
        kills.append(random_kill(dice, number, aimed, SECONDS, group=has_children(options) and dice.random() < 0.5))
    return kills


def has_children(options: Mapping[str, object]) -> bool:
    """Whether a signal to the process group reaches more than one process."""
    return options.get("workers") == 2 or str(options.get("run")).startswith("compiled")


def while_compiling(dice: random.Random) -> list[Kill]:
    """One with each signal; from a terminal they reach the C++ compiler, too."""
    return [
        Kill(number, "compiling", seconds=dice.uniform(0.1, 8.0), group=dice.random() < 0.5)
        for number in dice.sample(list(CODES), len(CODES))
    ]


def read(results: Path) -> list[Record]:
    """What is known already."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def plans(seed: int, interpreters: str) -> list[Job]:
    """All that is to be done; a seed's kills do not depend on what is left out of them."""
    dice = random.Random(seed)
    planned: Counter[tuple[str, signal.Signals]] = Counter()
    rows = settings() if interpreters == FORKED else fresh_settings()
    chosen = [(name_of(setting), options_of(setting)) for setting in reversed(rows)]
    chosen.sort(key=lambda job: str(job[1]["run"]).startswith("compiled"))  # these take longest
    if interpreters == FORKED:
        chosen.append((COLD, {"run": "compiled donated", "workers": 0, "cold": True}))
    runs = range(RUNS[interpreters])
    return [Job(name, options, [plan(options, planned, dice) for _ in runs]) for name, options in chosen]


def killed_runs(
    place: Path, options: Mapping[str, object], kills: list[Kill], parents: list[Starter]
) -> tuple[list[Kill], list[Path]]:
    """Kill a run and let it end; begin another with the kills that are left if it ended before they came.

    Returns:
        The kills that found a run at work; the runs' directories.
    """
    dice = random.Random(str(kills))
    told = {name: value for name, value in options.items() if name != "cold"}
    landed: list[Kill] = []
    run_dirs: list[Path] = []
    for how in kills:
        if not run_dirs or (run_dirs[-1] / "result.json").exists():
            run_dirs.append(place.with_name(f"{place.name}-{len(run_dirs)}"))
        store = {"FUNCTRAIN_CACHE_DIR": f"{run_dirs[-1]}.store"} if options.get("cold") else {}
        if kill(dice.choice(parents), run_dirs[-1], told, how, store):
            landed.append(how)
    to_the_end(dice.choice(parents).start(run_dirs[-1], told, store))
    return landed, run_dirs


class Worker(threading.Thread):
    """Takes settings and kills their runs, until there are none left."""

    def __init__(self, jobs: "queue.Queue[Job]", results: Path, interpreters: str) -> None:
        super().__init__()
        self.jobs, self.results = jobs, results
        self.starter = Parent if interpreters == FORKED else Fresh
        self.done = {(record["setting"], record["run"]) for record in read(results)}

    def run(self) -> None:
        with self.starter(1) as one, self.starter(2) as other:
            while True:
                try:
                    job = self.jobs.get_nowait()
                except queue.Empty:
                    return
                self._kill_all(job, [one, other])

    def _kill_all(self, job: "Job", parents: list[Starter]) -> None:
        place = Path(tempfile.mkdtemp())
        to_do = [number for number in range(len(job.runs)) if (job.name, number) not in self.done]
        if not to_do:
            return
        try:
            to_the_end(parents[0].start(place / "whole", {k: v for k, v in job.options.items() if k != "cold"}))
            whole = outcome(place / "whole")
        except Exception:
            for number in to_do:
                self._note(job, number, [], traceback.format_exc(), 0.0)
            return
        for number in to_do:
            self._kill(job, number, place / f"killed-{number}", whole, parents)

    def _kill(self, job: "Job", number: int, run_dir: Path, whole: dict[str, object], parents: list[Starter]) -> None:
        reason, landed, began, kills = "", [], time.monotonic(), job.runs[number]
        try:
            landed, run_dirs = killed_runs(run_dir, job.options, kills, parents)
            if parts := [part for found in run_dirs for part in differing(whole, outcome(found))]:
                reason = f"other bits in {', '.join(parts)}"
        except Exception:  # whatever went wrong, that run is lost, and the others are killed all the same
            reason = traceback.format_exc()
        self._note(job, number, landed, reason, time.monotonic() - began)
        if reason:
            print(f"  {run_dir}: {kills}", flush=True)

    def _note(self, job: "Job", number: int, landed: list[Kill], reason: str, seconds: float) -> None:
        record = {
            "setting": job.name,
            "run": number,
            "landed": [[how.moment or AT_A_RANDOM_TIME, how.number.name, how.group] for how in landed],
            "reason": reason,
        }
        with _lock, self.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
            print(f"{job.name}: {len(landed)} kills in {seconds:.0f} s, {reason or 'equal'}", flush=True)


_lock = threading.Lock()


def table(records: list[Record], seed: int) -> list[str]:
    """As the page shows it."""
    kills: Counter[tuple[str, str]] = Counter()
    by_setting: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for record in records:
        name = str(record["setting"])
        kills.update((moment, number) for moment, number, _ in record["landed"])  # type: ignore[attr-defined]
        by_setting[name] += len(record["landed"])  # type: ignore[arg-type]
        runs[name] += 1
        lost[name] += bool(record["reason"])
    to_group = sum(group for record in records for _, _, group in record["landed"])  # type: ignore[attr-defined]
    lines = [
        f"Of {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, torch {torch.__version__}, seed {seed}: "
        f"**{by_setting.total()} kills, {lost.total()} runs lost.** {runs.total()} runs of {len(runs)} settings; "
        f"{to_group} of the signals went to the whole process group, as a terminal sends them.",
        "",
        "| moment | " + " | ".join(number.name for number in CODES) + " |",
        "|---|" + "---:|" * len(CODES),
    ]
    moments = [AT_A_RANDOM_TIME, *FIRST, *WHILE_TRAINING, *LAST]
    lines += [f"| {m} | " + " | ".join(str(kills[m, number.name]) for number in CODES) + " |" for m in moments]
    lines += ["", "| setting | runs | kills | runs lost |", "|---|---:|---:|---:|"]
    return lines + [f"| {name} | {runs[name]} | {by_setting[name]} | {lost[name]} |" for name in sorted(runs)]


def main() -> int:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument("--fresh", action="store_true", help="in fresh interpreters only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print, do not write the page")
    parser.add_argument("--parallel", type=int, default=2, help="settings at once")
    parser.add_argument("--results", type=Path, help="folder of results and compiled steps; what it holds is kept")
    given = parser.parse_args()
    lost = False
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        results = given.results or Path(folder)
        os.environ["FUNCTRAIN_CACHE_DIR"] = f"{results}/programs"  # one store: each step is compiled once
        for interpreters in (FRESH,) if given.fresh else (FORKED, FRESH):
            records = kill_all(interpreters, given, results / f"{interpreters}.jsonl")
            lines = table(records, given.seed)
            print("\n".join(lines))
            if not given.dry:
                write(lines, interpreters)
            lost = lost or any(record["reason"] for record in records)
    return int(lost)


def kill_all(interpreters: str, given: argparse.Namespace, results: Path) -> list[Record]:
    """All of one kind of interpreters."""
    jobs: queue.Queue[Job] = queue.Queue()
    for job in plans(given.seed, interpreters):
        if given.only in job.name:
            jobs.put(job)
    workers = [Worker(jobs, results, interpreters) for _ in range(given.parallel)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return read(results)


def write(lines: list[str], interpreters: str) -> None:
    """Into the page."""
    text, begin, end = PAGE.read_text(), BEGIN.format(interpreters), END.format(interpreters)
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    PAGE.write_text("\n".join([before, *lines, after]))


if __name__ == "__main__":
    sys.exit(main())
