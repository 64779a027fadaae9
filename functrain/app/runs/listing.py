"""`functrain runs`: the runs in a directory. It reads a few bytes of each, and imports no torch."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from functrain.app.runs import outcome
from functrain.app.runs.plain_table import table
from functrain.foundation.errors import ConfigError
from functrain.foundation.file_locks import try_lock

DEEPEST = 3  # folders of folders of runs
HEAD, TAIL = 1024, 16384  # bytes that are read of a checkpoint's index, and of a log
LOCK, LOG, CONFIG, CHECKPOINTS, INDEX = (
    ".functrain-lock",
    "metrics.jsonl",
    "config.yaml",
    "checkpoints",
    "functrain.json",
)
SORTS = ("name", "status", "step", "epoch", "best", "age")
UNREADABLE, ENDED = "unreadable", "ended"

# As functrain.checkpoint.index writes it.
_INDEX = re.compile(
    rb'\{"sha256": "[0-9a-f]{64}", "index":\n'
    rb'\{"format_version": \d+, "step": (\d+), "micro_step": \d+, "status": "([^"\\]*)", '
    rb'"metric": ([^,{}]+|\{[^{}]*\}), "time"'
)


@dataclass(frozen=True)
class Listed:
    """A run, in a line.

    Attributes:
        name: of its directory, from the listed one on.
        path: of its directory.
        status: "running", "finished", "interrupted", "failed", "stopped" (by a callback), "ended" (a script's run, of
            which only that it is over is known), or "unreadable".
        detail: why, for some.
        step, epoch: that it has reached; None before the first record.
        best: the best value of the watched metric; None if there is none.
        watch: the metric's name, if it is known.
        age: seconds since the run last wrote.
    """

    name: str
    path: str
    status: str
    detail: str
    step: int | None
    epoch: int | None
    best: float | None
    watch: str | None
    age: float


def runs(folder: Path, sort: str, reverse: bool, as_json: bool) -> Iterator[str]:
    """The lines of the command.

    Args:
        folder: that holds the runs, in itself or in its folders.
        sort: one of `SORTS`.
        reverse: the largest first.
        as_json: print JSON instead of a table.

    Raises:
        ConfigError: there is no such directory.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"there is no directory {folder}: give the one that holds the runs, as in 'functrain runs DIR'"
        )
    found = sorted(_listed(folder), key=lambda run: run.name)
    value = attrgetter(sort)
    ordered = sorted((run for run in found if value(run) is not None), key=value, reverse=reverse)
    found = ordered + [run for run in found if value(run) is None]
    if as_json:
        yield from json.dumps([asdict(run) for run in found], indent=2).splitlines()
    elif not found:
        yield f"no runs in {folder}"
    else:
        yield from table(["name", "status", "step", "epoch", "best", "metric", "age"], map(_cells, found), left=2)


def run_folders(folder: Path) -> Iterator[Path]:
    """The directories of runs in a folder, itself included; a run's own folders hold no further ones."""
    return (Path(path) for path, _ in _run_folders(os.fspath(folder), DEEPEST))


def _run_folders(folder: str, depth: int) -> Iterator[tuple[str, frozenset[str]]]:
    """Path and names of the files in it, of each run. Plain strings: paths of pathlib would take half of the time."""
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError:
        return
    names = frozenset(entry.name for entry in entries)
    if CONFIG in names or LOG in names or CHECKPOINTS in names:
        yield folder, names
    elif depth:
        for entry in entries:
            if entry.name[:1] != "." and entry.is_dir():
                yield from _run_folders(entry.path, depth - 1)


def _listed(folder: Path) -> list[Listed]:
    now, root = time.time(), os.fspath(folder)
    return [_one(os.path.relpath(path, root) if path != root else folder.resolve().name, path, names, now)
            for path, names in _run_folders(root, DEEPEST)]  # fmt: skip


def _one(name: str, run: str, names: frozenset[str], now: float) -> Listed:
    try:
        return _read(name, run, names, now)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Listed(name, run, UNREADABLE, str(error), None, None, None, None, now - os.stat(run).st_mtime)


def _read(name: str, run: str, names: frozenset[str], now: float) -> Listed:
    """One run.

    Raises:
        OSError, ValueError, KeyError, TypeError: its files are not what a run writes.
    """
    known: dict[str, Any] = {}
    if outcome.FILE in names:
        with open(f"{run}/{outcome.FILE}", "rb") as file:
            known = json.load(file)
    last = _index(run, "last") if CHECKPOINTS in names else None
    best = _index(run, "best") if last is not None else None
    record, written = _last_record(f"{run}/{LOG}") if LOG in names else (None, os.stat(run).st_mtime)
    status, detail = _status(run, names, known, last)
    return Listed(
        name=name,
        path=run,
        status=status,
        detail=detail,
        step=record["step"] if record is not None else None if last is None else last[0],
        epoch=None if record is None else record["epoch"],
        best=None if best is None else best[2],
        watch=known.get("watch"),
        age=max(now - written, 0.0),
    )


def _status(run: str, names: frozenset[str], known: dict[str, Any], last: "_Head | None") -> tuple[str, str]:
    """Status and detail."""
    if LOCK in names:  # its owner is at work, or was killed
        return (outcome.RUNNING if is_running(Path(run)) else outcome.INTERRUPTED), ""
    if known:
        status = str(known["status"])
        return (outcome.INTERRUPTED, "") if status == outcome.RUNNING else (status, str(known.get("detail", "")))
    if last is None:
        return outcome.INTERRUPTED, ""
    return {"COMPLETE": ENDED, "NONFINITE": outcome.FAILED}.get(last[1], outcome.INTERRUPTED), ""


def is_running(run: Path) -> bool:
    """Whether a process is writing to a run's directory; one on another machine counts until its lock is removed."""
    try:
        descriptor = os.open(run / LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        try:
            owner = json.loads(os.read(descriptor, 4096))
            host, pid = str(owner["host"]), int(owner["pid"])
        except (ValueError, KeyError, TypeError):
            host, pid = socket.gethostname(), 0
        if host != socket.gethostname():
            return True
        taken = try_lock(descriptor)
        if taken is None and pid > 0 and os.name == "posix":
            with suppress(ProcessLookupError):
                os.kill(pid, 0)
                return True
        return taken is False
    finally:
        os.close(descriptor)


_Head = tuple[int, str, float | None]  # step, status and metric of a checkpoint


def _index(run: str, link: str) -> _Head | None:
    """What the index of the checkpoint that a link names begins with; None without one.

    Raises:
        ValueError: its index does not begin as one does.
    """
    try:
        with open(f"{run}/{CHECKPOINTS}/{link}/{INDEX}", "rb", buffering=0) as file:
            head = file.read(HEAD)
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = _INDEX.match(head)
    if found is None:
        raise ValueError(f"the index of the checkpoint {link!r} is damaged")
    try:
        metric = float(found[3])
    except ValueError:  # none, or one that JSON does not have
        metric = None
    return int(found[1]), found[2].decode(), metric


def _last_record(log: str) -> tuple[dict[str, int] | None, float]:
    """The place of the last whole record of a log, and when the log was written to.

    Raises:
        ValueError: it is no record.
    """
    with open(log, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if status.st_size > TAIL:
            file.seek(status.st_size - TAIL)
        text = file.read(TAIL)
    end = text.rfind(b"\n")  # what follows is being written
    if end < 0:
        return None, status.st_mtime
    record = json.loads(text[text.rfind(b"\n", 0, end) + 1 : end])
    return {"step": int(record["step"]), "epoch": int(record["epoch"])}, status.st_mtime


def _cells(run: Listed) -> Sequence[str]:
    numbers = ["" if value is None else str(value) for value in (run.step, run.epoch)]
    best = "" if run.best is None else f"{run.best:.4f}" if 1e-3 <= abs(run.best) < 1e5 else f"{run.best:.4g}"
    return [run.name, run.status, *numbers, best, run.watch or "", age(run.age)]


def age(seconds: float) -> str:
    """A time span in its largest unit.

    Example:
        >>> age(5), age(600), age(7300), age(200_000)
        ('5 s', '10 min', '2 h', '2 d')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
