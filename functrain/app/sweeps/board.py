"""What a sweep shows while it runs: a live table on a terminal, elsewhere a line for each start and end."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from functrain.app.sweeps.plan import Member
from functrain.app.sweeps.results import FAILED, FINISHED, PAUSED, PRUNED, RUNNING, WAITING, Result, latest, result
from functrain.app.sweeps.workers import Ended, Task
from functrain.foundation.printing import printable

REFRESH = 0.5  # seconds
FEWEST_ROWS = 5
AROUND = 8  # lines of a terminal beside the rows of the table
COLORS = {RUNNING: "cyan", FINISHED: "green", FAILED: "red", PRUNED: "yellow", PAUSED: "cyan"}
FIRST = (RUNNING, FAILED)  # shown where not all members fit


class Board:
    """The display of a sweep, within `with`.

    Args:
        console: what to print on.
        folder: the sweep's.
        members: of the sweep.
        statuses: of each by name; the board reads it each time.
        seconds: that earlier processes of each member took.
    """

    def __init__(
        self,
        console: Console,
        folder: Path,
        members: Sequence[Member],
        statuses: Mapping[str, str],
        seconds: Mapping[str, float],
    ) -> None:
        self._console, self._folder = console, folder
        self._members, self._statuses = list(members), statuses
        self._seconds = dict(seconds)
        self._began: dict[str, float] = {}
        self._results: dict[str, Result] = {}
        self._shown = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, members: Sequence[Member]) -> None:
        """Show these members from now on."""
        self._members = list(dict.fromkeys([*self._members, *members]))

    def say(self, text: str, style: str = "") -> None:
        """Print a line above the table."""
        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    def started(self, task: Task) -> None:
        """A process has started."""
        for member in task.members:
            self._began[member.name] = time.monotonic()
        if self._live is None and task.others:
            self.say(f"started   {task.label}: {len(task.members)} members")
        elif self._live is None:
            until = "" if task.until is None else f" (to epoch {task.until})"
            self.say(f"started   {who(task.member)}{until}")

    def ended(self, ended: Ended, statuses: Mapping[str, str]) -> None:
        """A process has ended; its members have these statuses now, by name."""
        task = ended.task
        for member in task.members:
            self._began.pop(member.name, None)
            self._seconds[member.name] = self._seconds.get(member.name, 0.0) + ended.seconds / len(task.members)
            self._results.pop(member.name, None)
        if ended.code and FAILED in statuses.values():
            name = f"{task.label} ({len(task.members)} members)" if task.others else who(task.member)
            self.say(f"failed    {name}: {ended.why}. The end of its log:", "red")
            for line in ended.said:
                self.say(f"          {line}")
            return
        for member in task.members:
            status = statuses[member.name]
            if status == FAILED:
                self.say(f"failed    {who(member)}: its loss or gradient was not finite; the others trained on", "red")
            elif self._live is None:
                self.say(f"{status:9} {who(member)}: {progress(self._result(member))}, {clock(ended.seconds)}")

    def poll(self) -> None:
        """Show the table anew, if it is time."""
        if self._live is not None and time.monotonic() - self._shown > REFRESH:
            self._shown = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Group:
        rows = max(self._console.height - AROUND, FEWEST_ROWS)
        order = sorted(self._members, key=lambda member: self._statuses[member.name] not in FIRST)
        shown = set(order[:rows])
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
        for column in ("member", "overrides", "status", "epoch", "metric", "time"):
            table.add_column(column, justify="right" if column in ("epoch", "metric", "time") else "left")
        for member in self._members:
            if member in shown:
                table.add_row(*self._row(member))
        return Group(table, Text(self._summary(len(self._members) - len(shown))))

    def _row(self, member: Member) -> list[Text]:
        status, found = self._statuses[member.name], self._result(member)
        length = member.epochs_of(found.stage) if found.stage else member.epochs
        epochs = f"{found.stage} {found.epochs}/{length}" if length else f"{found.stage} {found.epochs}"
        took = self._seconds.get(member.name, 0.0)
        if member.name in self._began:
            took += time.monotonic() - self._began[member.name]
        return [
            Text(member.id),
            Text(printable(" ".join(member.point))),
            Text(status, style=COLORS.get(status, "")),
            Text("" if status == WAITING and not found.epochs else epochs.strip()),
            Text(number(found.last)),
            Text(clock(took) if took else ""),
        ]

    def _result(self, member: Member) -> Result:
        """What a member has reached; of one that is not running it is read once."""
        if member.name in self._began:
            return latest(member, self._folder)
        if member.name not in self._results:
            self._results[member.name] = result(member, self._folder)
        return self._results[member.name]

    def _summary(self, left_out: int) -> str:
        counts: dict[str, int] = {}
        for member in self._members:
            status = self._statuses[member.name]
            counts[status] = counts.get(status, 0) + 1
        said = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"{said}; {left_out} more are not shown" if left_out else said


def who(member: Member) -> str:
    """A member in a line."""
    return f"{member.id} {' '.join(member.point)}".rstrip()


def progress(found: Result) -> str:
    """What a member has reached, in a line.

    Example:
        >>> progress(Result("eval_loss", 0.25, 4, 0.5, 5)), progress(Result())
        ('epoch 5, eval_loss 0.5000, best 0.2500', 'no epoch yet')
    """
    if not found.epochs:
        return "no epoch yet"
    values = f", {found.metric} {number(found.last)}, best {number(found.best)}" if found.best is not None else ""
    return f"epoch {found.epochs}{values}"


def number(value: float | None) -> str:
    """A metric's value for people; "" for none."""
    if value is None:
        return ""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def clock(seconds: float) -> str:
    """A time span.

    Example:
        >>> clock(7.2), clock(75), clock(3700)
        ('0:07', '1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
