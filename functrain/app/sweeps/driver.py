"""The driver of a sweep: it plans members, has them trained round by round, and puts their results together."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from functrain.app.config.suggestions import did_you_mean
from functrain.app.screen import busy
from functrain.app.sweeps.asked import Sweep
from functrain.app.sweeps.board import Board
from functrain.app.sweeps.conclusion import conclude, write_csv
from functrain.app.sweeps.halving import Halving, length
from functrain.app.sweeps.identity import changed_file
from functrain.app.sweeps.plan import Member, Plan, joined, read_plan, write_plan
from functrain.app.sweeps.planning import Asked, requested
from functrain.app.sweeps.points import Point
from functrain.app.sweeps.programs import program_lines, with_programs
from functrain.app.sweeps.results import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    PAUSED,
    PRUNED,
    RUNNING,
    WAITING,
    Result,
    has_failed,
    is_done,
    metrics_of,
    read_mark,
    result,
)
from functrain.app.sweeps.suggesting import suggested
from functrain.app.sweeps.workers import Ended, Task, Workers, seconds_of
from functrain.foundation.errors import ConfigError, FunctrainError
from functrain.foundation.paths import shown_path
from functrain.foundation.printing import printable

MEMBER_FAILED = 1  # exit code


class Driver:
    """A sweep at work.

    Args:
        asked: what it is asked to do.
        folder: the sweep's; its lock is held.
        console: what to print on.
    """

    def __init__(self, asked: Sweep, folder: Path, console: Console) -> None:
        self._asked, self._folder, self._console = asked, folder, console
        recorded = read_plan(folder) or Plan(threads=_threads(asked.jobs), batch_size=asked.jobs)
        self._plan = recorded.compared_by(asked.criterion)
        self._to_plan = Asked(
            asked.config, asked.space.fixed, self._plan.threads, asked.trust, asked.stage, asked.all_stages,
            written={axis.name: axis.origin for axis in asked.space.keys}, vectorize=asked.vectorize,
        )  # fmt: skip
        self._problem: ConfigError | None = None
        self._why: Mapping[str, str] = {}
        self._code: Mapping[str, str] = {}
        self._statuses = {member.name: _status(folder / member.name) for member in self._plan.members}
        self._board = Board(console, folder, [], self._statuses, seconds_of(folder))
        self._workers = Workers(folder, asked.jobs, asked.trust, self._check_code)

    def run(self, points: Sequence[Point]) -> int:
        """Train all members; returns the exit code."""
        members: list[Member] = []
        if self._asked.optuna is None:
            with busy(self._console, "reading configurations, data and code"):
                members = self._planned(points)
        self._say_head(members)
        try:
            with self._board:
                for tasks in self._rounds(members):
                    self._board.show([task.member for task in tasks])
                    self._train(self._together(tasks))
                    if self._asked.fail_fast and FAILED in self._statuses.values():
                        break
        except KeyboardInterrupt:
            self._write_csv()
            print(f"functrain: interrupted; the members have saved their state in {shown_path(self._folder)}",
                  file=sys.stderr)  # fmt: skip
            print(f"To continue: {printable(' '.join(self._asked.command))}", file=sys.stderr)
            raise
        except FunctrainError:
            self._write_csv()
            raise
        conclude(self._console, self._folder, self._plan.members, self._statuses)
        return MEMBER_FAILED if FAILED in self._statuses.values() else 0

    def _planned(self, points: Sequence[Point], search: str = "") -> list[Member]:
        """Plan a member for each of these points, and record the plan.

        Args:
            points: of the space.
            search: of a sampler that suggests these points as its next batch; "" if it does not.
        """
        requests = requested(self._to_plan, points)
        plan, members = joined(self._plan, requests, self._folder, self._asked.changed)
        if search:
            batches = (*plan.batches, tuple(member.name for member in members))
            plan = plan.replace(search=search, batches=batches)
        plan = with_programs(plan, members, requests, self._folder)
        self._why = {member.name: request.why for member, request in zip(members, requests) if request.why}
        plan = plan.compared_by(self._asked.criterion)
        try:
            write_plan(self._folder, plan)
        except OSError as error:
            raise FunctrainError(f"{shown_path(self._folder)} cannot be written to: {error.strerror}") from error
        self._plan, self._code = plan, requests[0].parts.code
        for member in plan.members:
            self._statuses.setdefault(member.name, _status(self._folder / member.name))
        return plan.named(member.name for member in members)

    def _say_head(self, members: Sequence[Member]) -> None:
        distinct = list(dict.fromkeys(members))
        count = len(distinct) if members else self._asked.optuna
        done = sum(self._statuses[member.name] == FINISHED for member in distinct)
        threads = "1 thread" if self._plan.threads == 1 else f"{self._plan.threads} threads"
        said = [f"{count} members", *[f"{done} of them finished"] * bool(done), f"{self._asked.jobs} at once"]
        said.append(f"{threads} each unless the configuration says otherwise")
        self._board.say(f"sweep in {shown_path(self._folder)}: {', '.join(said)}", "bold")
        for line in program_lines(self._plan, distinct, self._why):
            self._board.say(line)
        if len(members) > len(distinct):
            self._board.say(f"{len(members)} combinations were asked for; equal ones are trained once")

    def _rounds(self, members: Sequence[Member]) -> Iterator[list[Task]]:
        """The tasks, in groups of which each needs the results of those before."""
        members = list(dict.fromkeys(members))
        if self._asked.optuna is not None:
            yield from self._suggested_rounds(self._asked.optuna)
        elif self._asked.halving is not None:
            yield from self._halving_rounds(members, self._asked.halving)
        else:
            yield [Task(member) for member in members]

    def _halving_rounds(self, members: list[Member], halving: Halving) -> Iterator[list[Task]]:
        for rung in halving.rungs(length(members)):
            yield [Task(member, rung) for member in members]
            found = {member.name: self._at_rung(member, rung) for member in members}
            going_on = halving.survivors(members, found)
            for member in members:
                if member not in going_on and self._statuses[member.name] != FAILED:
                    self._statuses[member.name] = PRUNED
            members = going_on
        yield [Task(member) for member in members]

    def _at_rung(self, member: Member, rung: int) -> Result:
        """What a member had reached at a rung; nothing if it failed before."""
        is_there = is_done(self._folder / member.name, rung)
        return result(member, self._folder, rung) if is_there else Result()

    def _suggested_rounds(self, count: int) -> Iterator[list[Task]]:
        search = _search_text(self._asked)
        if self._plan.batches and self._plan.search != search:
            raise ConfigError(
                f"the sweep in {shown_path(self._folder)} searches something else ({self._plan.search}); now it is "
                f"{search}. Choose another directory with --sweep-dir"
            )
        before: list[Member] = []
        recorded = [name for batch in self._plan.batches for name in batch]
        if recorded:  # as they would be begun now
            before = self._planned([member.point for member in self._plan.named(recorded)])
            yield [Task(member) for member in dict.fromkeys(before)]
        while len(before) < count:
            results = {member.name: result(member, self._folder) for member in before}
            size = min(self._plan.batch_size, count - len(before))
            points = suggested(
                self._asked.space, size, len(self._plan.batches), self._asked.search_seed, before, results
            )
            members = self._planned(points, search)
            yield [Task(member) for member in dict.fromkeys(members)]
            before += members

    def _together(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks, with one for all members of a program."""
        program_of = {name: names for names in self._plan.programs for name in names}
        found: dict[object, Task] = {}
        for task in tasks:
            names = program_of.get(task.member.name)
            if names is None:
                found[task.member.name] = task
            else:  # all of them, also those that this command does not ask for: a program trains the same ones again
                first, *others = self._plan.named(names)
                found[names] = Task(first, None, tuple(others))
        return list(found.values())

    def _train(self, tasks: Sequence[Task]) -> None:
        self._workers.run(tasks, on_start=self._started, on_end=self._ended, on_poll=self._board.poll)
        if self._problem is not None:
            raise self._problem

    def _started(self, task: Task) -> None:
        self._statuses |= dict.fromkeys(task.names, RUNNING)
        self._board.started(task)

    def _ended(self, ended: Ended) -> bool:
        """Note how a process has ended; returns whether the sweep goes on."""
        now = {name: self._status_after(ended, name) for name in ended.task.names}
        self._statuses |= now
        self._board.ended(ended, now)
        if ended.code == 0:
            self._check_metric(ended.task.member)
        return self._problem is None and not (self._asked.fail_fast and FAILED in now.values())

    def _status_after(self, ended: Ended, name: str) -> str:
        if ended.code:
            return INTERRUPTED if ended.was_told else FAILED
        if ended.task.others and has_failed(self._folder / name):
            return FAILED
        return FINISHED if ended.task.until is None else PAUSED

    def _check_metric(self, member: Member) -> None:
        """See that a member that has ended well has the metric by which members are compared."""
        criterion, known = self._asked.criterion, metrics_of(member, self._folder)
        if criterion is not None and criterion.metric not in known:
            self._problem = ConfigError(
                f"members cannot be compared by {criterion.metric!r}: member {member.id} has no such metric"
                f"{did_you_mean(criterion.metric, known)} metrics: {', '.join(known)}"
            )

    def _write_csv(self) -> None:
        try:
            write_csv(self._folder, self._plan.members, self._statuses)
        except OSError as error:
            self._board.say(f"sweep.csv cannot be written: {error.strerror}", "red")

    def _check_code(self) -> None:
        """See that the code is what it was when the members were planned: later ones would be another experiment.

        Raises:
            ConfigError: a file has changed.
        """
        changed = changed_file(self._code)
        if changed is not None:
            raise ConfigError(
                f"{shown_path(Path(changed))} has changed since the sweep was started, so no further members are "
                "begun. Put it back as it was and start the sweep again; or start it again with --changed keep or "
                "--changed again"
            )


def _status(directory: Path) -> str:
    """The status of a member before the sweep goes on."""
    mark = read_mark(directory)
    if mark is not None:
        return FINISHED if mark.until is None else PAUSED
    return INTERRUPTED if directory.exists() else WAITING


def _threads(jobs: int) -> int:
    """Threads for each of so many processes at once."""
    return max((os.cpu_count() or 1) // jobs, 1)


def _search_text(asked: Sweep) -> str:
    keys = [f"{axis.name}={axis.range or ','.join(axis.texts)}" for axis in asked.space.keys]
    criterion = asked.criterion
    by = [] if criterion is None else [f"for the {'highest' if criterion.maximizes else 'lowest'} {criterion.metric}"]
    return " ".join([*keys, *by, f"with --search-seed {asked.search_seed}"])
