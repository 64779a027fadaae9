"""Members of a sweep as fakes that write a log, so that no process imports torch."""

import csv
import os
import sys

from functrain.app.sweeps import driver, workers
from functrain.app.sweeps.planner import requested

FAKE = """
import json, os, re, signal, sys, time
from pathlib import Path
after = dict(zip(sys.argv[1:], sys.argv[2:]))
text, run = Path(after["train"]).read_text(), Path(after["--run-dir"])
until = int(after.get("--until-epoch", 4))
width = int(text.split("width: ")[-1].split()[0])
run.mkdir(exist_ok=True)
if (run / "fails").exists() or (width == 99 and "seed: 1" in text):
    print("functrain: error: it does not work")
    sys.exit(2)
stages = re.findall("^  (\\w+):$", text.partition("stages:")[2], re.MULTILINE) if "--all-stages" in sys.argv else [""]
for stage in stages:
    (run / stage).mkdir(exist_ok=True)
    log = run / stage / "metrics.jsonl"
    begun = len(log.read_text().splitlines()) if log.exists() else 0
    with (run / "starts").open("a") as file:
        file.write(f"{stage}{begun}-{until} ")
    for epoch in range(begun + 1, until + 1):
        record = {"kind": "epoch", "epoch": epoch, "step": epoch, "eval_loss": width / epoch, "eval_accuracy": width}
        with log.open("a") as file:
            file.write(json.dumps(record) + chr(10))
        if (run.parent / "slow").exists():
            time.sleep(60)
"""


def plan_here(monkeypatch):
    """Let sweeps be planned in this process, which has imported torch; returns the list of what was planned."""
    answers = []

    def plan(asked, points):
        answers.append(requested(**{**asked._asdict(), "config": os.fspath(asked.config)}, points=points))
        return answers[-1]

    monkeypatch.setattr(driver, "requested", plan)
    return answers


def fake_members(monkeypatch):
    """Let sweeps have fast members, planned in this process."""
    plan_here(monkeypatch)
    monkeypatch.setattr(workers, "python", lambda module, *arguments: [sys.executable, "-S", "-c", FAKE, *arguments])
    monkeypatch.setattr(workers, "POLL", 0.01)


def table(folder):
    """The text of sweep.csv."""
    return (folder / "sweep.csv").read_text()


def rows(folder):
    """Its rows."""
    return list(csv.DictReader(table(folder).splitlines()))


def starts(folder):
    """The epochs that each process of each member trained, by width."""
    found = {}
    for path in folder.glob("*/starts"):
        found[int(path.parent.name.partition("width=")[2].partition("-")[0].partition(",")[0])] = path.read_text()
    return found
