"""What a person sees while training runs.

In a notebook: an output that is rewritten in place. On a terminal: a live bar. Elsewhere (a log file, CI): a line an
epoch, and each half minute one within the epoch. The display is looked at by people, so it is redrawn a few times a
second at most, and only then are metrics read from the device.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from functrain.loop.output.elapsed import Elapsed
from functrain.loop.output.notebook import Notebook, in_notebook
from functrain.loop.output.progress_line import epoch_line
from functrain.loop.output.progress_moving import Display, Moving
from functrain.step.state import TrainState

REDRAW_SECONDS = 0.2  # of the live line
LINE_SECONDS = 30.0  # between two lines within an epoch, where there is no live line


class Lines(Moving):
    """A line per epoch, on standard error; within an epoch, one each `LINE_SECONDS`."""

    every = LINE_SECONDS

    def __init__(self) -> None:
        super().__init__()
        self._line_at: float | None = None  # the first micro-batch begins the clock

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print the record."""
        self.say(epoch_line(record, epochs=self._live_line.epochs))

    def say(self, text: str) -> None:
        """Print a line."""
        now = time.perf_counter()
        self._pace.pause(now)
        self._redraw_at, self._line_at = 0.0, now + self.every
        self._print(text)

    def _draw(self, state: TrainState, metrics: Mapping[str, Any]) -> None:
        self._look(state, metrics)
        now = self._redraw_at - self.every
        if self._line_at is None or now >= self._line_at:
            if self._line_at is not None:
                self._print(self._live_line.line())
            self._line_at = now + self.every
        self._redraw_at = self._line_at

    def _print(self, text: str) -> None:
        if not self._gone:
            with self._writing():
                print(text, file=sys.stderr, flush=True)


class Bar(Moving):
    """A live line with epoch, bar, loss, the objective's metric, learning rate, speed and time left."""

    every = REDRAW_SECONDS

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self._console = Console(stderr=True)
        # The loop redraws: a thread of its own would compete for the interpreter.
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._elapsed: Elapsed | None = None

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print the epoch's line above the bar."""
        self._print(epoch_line(record, self._console.width, epochs=self._live_line.epochs))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._pace.pause(time.perf_counter())
        self._redraw_at = 0.0
        self._print(text)

    def busy(self, text: str) -> None:
        """Print a line above the bar, and below it the time that goes by."""
        self.say(text)
        self._elapsed = Elapsed(self._console.file)  # type: ignore[arg-type]

    def close(self) -> None:
        """Remove the bar."""
        self._over()
        with self._writing():
            self._live.stop()

    def _draw(self, state: TrainState, metrics: Mapping[str, Any]) -> None:
        self._over()
        self._look(state, metrics)
        with self._writing():
            self._live.start()
            self._live.update(self._live_line, refresh=True)
        if self._gone:
            self._redraw_at = float("inf")

    def _over(self) -> None:
        if self._elapsed is not None:
            self._elapsed.stop()
            self._elapsed = None

    def _print(self, text: str) -> None:
        self._over()
        if not self._gone:
            with self._writing():
                self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def display(progress: bool | str | Display | None) -> Display:
    """The display for a choice: none for False; else what suits a notebook, a terminal, or a file."""
    if isinstance(progress, Display):
        return progress
    if progress is False:
        return Display()
    if in_notebook():
        return Notebook(curve=progress == "curve")
    if sys.stderr is None:
        return Display()
    return Bar() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines()


def format_value(value: Any) -> str:
    """A number for people: 4 digits, integers whole.

    Example:
        >>> format_value(0.123456), format_value(12), format_value(3e-7)
        ('0.1235', '12', '3e-07')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
