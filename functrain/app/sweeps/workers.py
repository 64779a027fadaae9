"""The processes of a sweep's members: start them, wait for them, end them."""

import csv
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from functrain.app.config.yaml_text import dump
from functrain.app.lifeline import GRACE, python
from functrain.app.runs.listing import is_running
from functrain.app.sweeps.plan import Member, write_whole
from functrain.app.sweeps.programs import FOLDER as PROGRAMS
from functrain.app.sweeps.programs import note, program_id
from functrain.app.sweeps.results import Mark, has_failed, is_done, write_mark
from functrain.foundation.errors import ConfigError
from functrain.foundation.signature import signed_yaml

CONFIGS, LOGS, PROCESSES = "configs", "logs", "processes.csv"
POLL = 0.1  # seconds
MOST_LINES = 10  # of what a failed member has said


class Task(NamedTuple):
    """A member that is to be trained, or the members of a program.

    Attributes:
        member: which; of a program the first one.
        until: the epoch to pause after; None for its end.
        others: the further members of a program.
    """

    member: Member
    until: int | None = None
    others: tuple[Member, ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """All of them."""
        return (self.member, *self.others)

    @property
    def names(self) -> list[str]:
        """Of the members' directories."""
        return [member.name for member in self.members]

    @property
    def label(self) -> str:
        """The name of its log."""
        return f"program-{program_id(self.names)}" if self.others else self.member.name


class Ended(NamedTuple):
    """A process that has ended.

    Attributes:
        task: what it was to do.
        code: its exit code, or minus the signal that ended it.
        seconds: that it took.
        was_told: the sweep has told it to end.
        said: its last lines, if it has failed.
    """

    task: Task
    code: int
    seconds: float
    was_told: bool = False
    said: Sequence[str] = ()

    @property
    def why(self) -> str:
        """What became of it, in words; "" if all is well."""
        if self.code == 0:
            return ""
        if self.code < 0:
            name = signal.Signals(-self.code).name if -self.code in list(signal.Signals) else f"signal {-self.code}"
            hint = "; the system sends it where memory is short" if -self.code == signal.SIGKILL else ""
            return f"was ended by {name}{hint}"
        if self.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            return f"was interrupted by {signal.Signals(self.code - 128).name}, and has saved its state"
        return f"failed with exit code {self.code}"


@dataclass
class _Running:
    task: Task
    process: "subprocess.Popen[bytes]"
    began: float
    started: str
    log: Path
    offset: int


class Workers:
    """The processes of a sweep, at most so many at once.

    Args:
        folder: the sweep's.
        jobs: processes at once.
        trust: `--trust` was given.
        check: called before each start; it raises if the sweep must not go on.
    """

    def __init__(self, folder: Path, jobs: int, trust: bool, check: Callable[[], None]) -> None:
        self._folder, self._jobs, self._trust, self._check = folder, jobs, trust, check
        self._running: list[_Running] = []
        self._held: dict[str, float] = {}
        self._told = False

    @property
    def running(self) -> list[Task]:
        """What is being trained."""
        return [each.task for each in self._running]

    def run(
        self,
        tasks: Iterable[Task],
        *,
        on_start: Callable[[Task], None],
        on_end: Callable[[Ended], bool],
        on_poll: Callable[[], None],
    ) -> None:
        """Do the tasks that are not done yet.

        Args:
            tasks: in their order.
            on_start: called when a process has started.
            on_end: called when one has ended; False ends the others, too.
            on_poll: called some times a second.

        Raises:
            KeyboardInterrupt: after a signal, when all processes have saved their state and ended.
            Exception: of `check`, when the processes that were at work have ended.
        """
        waiting = [task for task in tasks if not self._is_done(task)]
        error: Exception | None = None
        goes_on = True
        try:
            while waiting or self._running:
                task = self._next(waiting) if goes_on else None
                if task is not None:
                    try:
                        self._check()
                        self._start(task)
                    except (ConfigError, OSError) as problem:
                        error, goes_on = problem, False
                    else:
                        waiting.remove(task)
                        on_start(task)
                        continue
                for ended in self._reap():
                    if not on_end(ended) and goes_on:
                        goes_on = False
                        self._tell_to_end()
                if not goes_on:
                    waiting.clear()
                on_poll()
                time.sleep(POLL)
        except KeyboardInterrupt:
            self._tell_to_end()
            while self._running:
                for ended in self._reap():
                    on_end(ended)
                time.sleep(POLL)
            raise
        if error is not None:
            raise error

    def _next(self, waiting: Sequence[Task]) -> Task | None:
        """The task to start now; None if all places are taken."""
        if len(self._running) >= self._jobs:
            return None
        return next((task for task in waiting if self._is_free(task)), None)

    def _is_done(self, task: Task) -> bool:
        return all(is_done(self._folder / name, task.until) for name in task.names)

    def _is_free(self, task: Task) -> bool:
        """Whether nobody trains it: a process of a driver that was killed may still be saving its state."""
        runs = [run for member in task.members for run in member.runs]
        runs += [f"{PROGRAMS}/{program_id(task.names)}"] * bool(task.others)
        if not any(is_running(self._folder / run) for run in runs):
            return True
        since = self._held.setdefault(task.label, time.monotonic())
        return time.monotonic() - since > GRACE  # the task's own process will say who it is

    def _start(self, task: Task) -> None:
        log = self._folder / LOGS / f"{task.label}.log"
        for member in task.members:
            write_whole(self._config(member), signed_yaml(dump(dict(member.config))))
        log.parent.mkdir(exist_ok=True)
        command = self._program(task) if task.others else self._alone(task)
        command += ["--trust"] * self._trust
        with log.open("ab") as output:
            offset = output.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end is this process's
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C reaches the driver alone, which hands it on
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._running.append(_Running(task, process, time.monotonic(), now, log, offset))

    def _config(self, member: Member) -> Path:
        return self._folder / CONFIGS / f"{member.name}.yaml"

    def _alone(self, task: Task) -> list[str]:
        """The command that trains one member."""
        member = task.member
        what = [] if task.until is None else ["--until-epoch", str(task.until)]
        what += ["--all-stages"] * member.is_staged
        place = ["--run-dir", os.fspath(self._folder / member.name), "--no-progress"]
        return python("functrain.app.sweeps.worker", "train", os.fspath(self._config(member)), *place, *what)

    def _program(self, task: Task) -> list[str]:
        """The command that trains a program's members."""
        note(self._folder, task.names)
        return python("functrain.app.sweeps.program_worker", os.fspath(self._folder), *task.names)

    def _reap(self) -> list[Ended]:
        """The processes that have ended."""
        found = []
        for each in list(self._running):
            code = each.process.poll()
            if code is None:
                continue
            self._running.remove(each)
            assert each.process.stdin is not None
            each.process.stdin.close()
            for name in each.task.names if code == 0 else ():
                if not has_failed(self._folder / name):  # of a program one member may, and the others train on
                    write_mark(self._folder / name, Mark(each.task.until))
            seconds = time.monotonic() - each.began
            self._note(each, code, seconds)
            said = () if code == 0 else _last_lines(each.log, each.offset)
            found.append(Ended(each.task, code, seconds, self._told, said))
        return found

    def _note(self, each: _Running, code: int, seconds: float) -> None:
        path = self._folder / PROCESSES
        is_new = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("member", "started", "seconds", "exit_code")] * is_new)
            share = seconds / len(each.task.names)
            writer.writerows((name, each.started, f"{share:.1f}", code) for name in each.task.names)

    def _tell_to_end(self) -> None:
        self._told = True
        for each in self._running:
            each.process.send_signal(signal.SIGINT)


def _last_lines(log: Path, offset: int) -> list[str]:
    """What a process has said at its end."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(offset, size - 20_000))
        lines = file.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-MOST_LINES:]


def seconds_of(folder: Path) -> dict[str, float]:
    """The seconds that the processes of each member took, by name."""
    found: dict[str, float] = {}
    with suppress(OSError), (folder / PROCESSES).open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            with suppress(ValueError, IndexError):  # the head, or half a line of a driver that was killed
                found[row[0]] = found.get(row[0], 0.0) + float(row[2])
    return found
