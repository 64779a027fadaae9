"""What a person sees while training runs. Imports step; rich on first use.

On a terminal: a live bar. Elsewhere (a log file, CI): one line an epoch. The display is looked at by
people, so it is redrawn a few times a second at most, and only then are metrics read from the device.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

from functrain.step.state import TrainState

REDRAW_SECONDS = 0.2


class Display:
    """Shows nothing: the base of the others, and the choice of `progress=False`."""

    def start(self, state: TrainState, total: int | None, done: int) -> None:
        """Training starts, or goes on, at `state`: `done` micro-batches of `total` in all, where known."""

    def step(self, state: TrainState, metrics: Mapping[str, Any]) -> None:
        """A micro-batch is done."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done."""

    def say(self, text: str) -> None:
        """Tell the person something."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Lines(Display):
    """A line per epoch, on standard error."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print the record."""
        self.say("  ".join(f"{name} {format_value(value)}" for name, value in record.items() if name != "kind"))

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)


class Bar(Display):
    """A live progress bar with epoch, metrics, learning rate, examples per second and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("[bold]epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[metrics]}  {task.fields[rate]}  {task.fields[left]}"),
            console=Console(stderr=True),
            auto_refresh=False,  # the loop redraws: a thread of its own would compete for the interpreter
            expand=True,
        )
        self._task = self._progress.add_task("", total=None, epoch="", metrics="", rate="", left="")
        self._drawn = self._started = 0.0
        self._examples = self._first_batch = self._batches = 0
        self._total: int | None = None

    def start(self, state: TrainState, total: int | None, done: int) -> None:
        """Draw the bar."""
        self._total, self._first_batch = total, done
        self._started = self._drawn = time.perf_counter()
        self._examples = state.samples_seen
        self._progress.update(self._task, total=total)
        self._progress.start()

    def step(self, state: TrainState, metrics: Mapping[str, Any]) -> None:
        """Redraw, if the last time is long enough ago."""
        self._batches += 1
        now = time.perf_counter()
        if now - self._drawn < REDRAW_SECONDS:
            return
        rate = (state.samples_seen - self._examples) / (now - self._drawn)
        self._drawn, self._examples = now, state.samples_seen
        done = self._first_batch + self._batches
        left = ""
        if self._total is not None:
            seconds = (now - self._started) / self._batches * max(self._total - done, 0)
            left = f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"
        shown = {name: metrics[name] for name in metrics if name not in ("grad_norm", "skipped")}
        self._progress.update(
            self._task,
            completed=done,
            epoch=state.epoch + 1,
            metrics="  ".join(f"{name} {format_value(float(value))}" for name, value in shown.items()),
            rate=f"{rate:,.0f} samples/s",
            left=left,
        )
        self._progress.refresh()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print the epoch's line above the bar."""
        self.say("  ".join(f"{name} {format_value(value)}" for name, value in record.items() if name != "kind"))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Remove the bar."""
        self._progress.update(self._task, visible=False)
        self._progress.refresh()
        self._progress.stop()


def display(progress: bool | None) -> Display:
    """The display for a choice: True, False, or None for a bar on a terminal and lines elsewhere."""
    if progress is False:
        return Display()
    return Bar() if sys.stderr.isatty() else Lines()


def format_value(value: Any) -> str:
    """A number for people: 4 digits, integers whole.

    Example:
        >>> format_value(0.123456), format_value(12), format_value(3e-7)
        ('0.1235', '12', '3e-07')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
