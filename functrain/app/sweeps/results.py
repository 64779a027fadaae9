"""What a sweep's members have reached, as their directories say, and `sweep.csv`."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functrain.app.config.yaml_text import dump_flow
from functrain.app.runs import outcome
from functrain.app.runs.compare import PREFIXES, epoch_records
from functrain.app.sweeps.plan import Member, settings, write_whole
from functrain.app.sweeps.points import columns
from functrain.app.sweeps.programs import noted, of_member
from functrain.foundation.errors import ConfigError
from functrain.foundation.regular_files import read_regular

MARK = "member.json"  # in a member's directory: its process has ended well
WAITING, RUNNING, PAUSED, PRUNED = "waiting", "running", "paused", "pruned"
FINISHED, INTERRUPTED, FAILED = outcome.FINISHED, outcome.INTERRUPTED, outcome.FAILED
LARGEST = 10_000  # bytes
TAIL = 65_536  # bytes of a log


@dataclass(frozen=True)
class Mark:
    """What the driver writes into a member's directory when its process has ended well.

    Attributes:
        until: the epoch that it was to train to; None for its end.
    """

    until: int | None


@dataclass(frozen=True)
class Result:
    """What a member has reached.

    Attributes:
        metric: the name of the watched one; None if it is not known yet.
        best: its best value, and `best_epoch` when that was; None if it has none.
        last: its last value.
        epochs: epochs trained.
        stage: the stage that is being trained, of several.
    """

    metric: str | None = None
    best: float | None = None
    best_epoch: int | None = None
    last: float | None = None
    epochs: int = 0
    stage: str = ""


def write_mark(directory: Path, mark: Mark) -> None:
    """Note that a member's process has ended well.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(directory / MARK, json.dumps({"until": mark.until}) + "\n")


def read_mark(directory: Path) -> Mark | None:
    """What the driver has noted; None if the member has yet to be trained, or trained on."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return Mark(json.loads(read_regular(directory / MARK, LARGEST))["until"])
    return None


def has_failed(directory: Path) -> bool:
    """Whether a member's run says that it has failed."""
    return outcome.read_outcome(directory).get("status") == FAILED


def is_done(directory: Path, until: int | None) -> bool:
    """Whether a member has been trained to its end, or at least to an epoch."""
    mark = read_mark(directory)
    return mark is not None and (mark.until is None or (until is not None and mark.until >= until))


def result(member: Member, folder: Path, until: int | None = None) -> Result:
    """What a member has reached; of several stages, what the last one has.

    Args:
        member: of the sweep.
        folder: the sweep's.
        until: leave out later epochs.
    """
    records = _epochs(member, folder)
    records = [record for record in records if until is None or record["epoch"] <= until]
    watch = _watch(member, records)
    values = [(record[watch], record["epoch"]) for record in records if watch in record]
    sound = [(value, epoch) for value, epoch in values if not math.isnan(value)]
    sign = -1 if member.maximizes else 1
    best, best_epoch = min(sound, key=lambda found: (sign * found[0], found[1]), default=(None, None))
    last = values[-1][0] if values else None
    return Result(watch or None, best, best_epoch, last, records[-1]["epoch"] if records else 0)


def metrics_of(member: Member, folder: Path) -> list[str]:
    """The names of the metrics in a member's log."""
    records = _epochs(member, folder)
    return list(dict.fromkeys(name for record in records for name in record if name.startswith(PREFIXES)))


def _epochs(member: Member, folder: Path) -> Sequence[Mapping[str, Any]]:
    """The records of a member's epochs; of one that a program trains, those in the program's log."""
    program = noted(folder / member.name)
    with suppress(ConfigError):  # being written, or not there yet
        if program is not None:
            return of_member(epoch_records(program[0] / "metrics.jsonl"), program[1])
        return epoch_records(folder / member.runs[-1] / "metrics.jsonl")
    return ()


def latest(member: Member, folder: Path) -> Result:
    """What a member that is being trained has reached, from the end of its log: a long log is not read each time."""
    logs = [folder / run / "metrics.jsonl" for run in member.runs]
    program = noted(folder / member.name)
    if program is not None:
        logs = [program[0] / "metrics.jsonl"]
    number = max((number for number, log in enumerate(logs) if log.exists()), default=0)
    lines: list[bytes] = []
    with suppress(OSError), logs[number].open("rb") as log:
        log.seek(max(log.seek(0, os.SEEK_END) - TAIL, 0))
        lines = log.read().split(b"\n")[:-1]
    records = []
    for line in lines:
        with suppress(ValueError):  # half a line, where the reading began
            records.append(json.loads(line))
    records = records if program is None else of_member(records, program[1])
    records = [record for record in records if record.get("kind") != "step"]
    watch = _watch(member, records)
    last = next((record[watch] for record in reversed(records) if watch in record), None)
    if number < len(logs) - 1:
        last = None  # it is the last stage's that counts
    stage = list(member.stages)[number]
    return Result(watch or None, last=last, epochs=records[-1]["epoch"] if records else 0, stage=stage)


def _watch(member: Member, records: Sequence[Mapping[str, Any]]) -> str:
    """The watched metric; without records it may not be known."""
    if member.watch is not None:
        return member.watch
    return next((name for name in ("eval_loss", "train_loss") if any(name in record for record in records)), "")


def ranked(members: Sequence[Member], results: Mapping[str, Result]) -> list[Member]:
    """The members from the best to the worst by the best value; those without one come last, in their order."""

    def place(member: Member) -> tuple[bool, float]:
        best = results[member.name].best
        return (best is None, 0.0 if best is None else -best if member.maximizes else best)

    return sorted(members, key=place)


def csv_text(members: Sequence[Member], statuses: Mapping[str, str], results: Mapping[str, Result]) -> str:
    """The table, a row for each member. It holds nothing that depends on time or on interruptions."""
    keys = columns([settings(member) for member in members])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["member", *keys, "status", "metric", "best", "best_epoch", "last", "epochs"])
    for member in members:
        found, values = results[member.name], settings(member)
        own = [_cell(values[key]) if key in values else "" for key in keys]
        numbers = [found.best, found.best_epoch, found.last, found.epochs]
        writer.writerow([member.name, *own, statuses[member.name], found.metric, *numbers])
    return text.getvalue()


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else dump_flow(value)
