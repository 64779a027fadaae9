"""What a person sees while training runs. Imports step; rich on first use.

On a terminal: a live bar. Elsewhere (a log file, CI): a line an epoch, and each half minute one within the epoch.
The display is looked at by people, so it is redrawn a few times a second at most, and only then are metrics read from
the device.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from functrain.loop.elapsed import Elapsed
from functrain.loop.progress_line import Pace, Sight, epoch_line
from functrain.step.state import TrainState

REDRAW_SECONDS = 0.2  # of the live line
LINE_SECONDS = 30.0  # between two lines within an epoch, where there is no live line


class Display:
    """Shows nothing: the base of the others, and the choice of `progress=False`.

    Training does not end because nobody looks any more: once something cannot be written, a display shows nothing more.
    """

    _gone = False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Around whatever writes."""
        try:
            yield
        except OSError:  # the pipe or the terminal is closed
            self._gone = True

    def start(self, state: TrainState, total: int | None, done: int, epochs: int | None = None) -> None:
        """Training starts, or goes on, at `state`: `done` micro-batches of `total` in all, of `epochs`, where known."""

    def step(self, state: TrainState, metrics: Mapping[str, Any], batches: int = 1) -> None:
        """A micro-batch is done, or so many; the metrics are those of the last."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is done."""

    def say(self, text: str) -> None:
        """Tell the person something; until the next micro-batch time does not count for the speed shown."""

    def busy(self, text: str) -> None:
        """Tell the person what is being done that may take minutes; it is over at whatever is shown next."""
        self.say(text)

    def close(self) -> None:
        """Leave the terminal as it was."""


class _Moving(Display):
    """What is common to displays that tell how far training is: when to say so, and what."""

    every: float

    def __init__(self) -> None:
        self._pace = Pace()
        self._sight = Sight()
        self._batches = 0
        self._redraw_at = 0.0

    def start(
        self,
        state: TrainState,  # noqa: ARG002 - a display that shows more than progress may want it
        total: int | None,
        done: int,
        epochs: int | None = None,
    ) -> None:
        """Remember where training starts; nothing is shown before the first micro-batch."""
        self._sight = Sight(epochs=epochs, total=total)
        self._batches = done
        self._pace = Pace()

    def step(self, state: TrainState, metrics: Mapping[str, Any], batches: int = 1) -> None:
        """Show how far training is, if the last time is long enough ago."""
        self._batches += batches
        if time.perf_counter() >= self._redraw_at:
            self._draw(state, metrics)

    def _draw(self, state: TrainState, metrics: Mapping[str, Any]) -> None:
        """Show it."""
        raise NotImplementedError

    def _look(self, state: TrainState, metrics: Mapping[str, Any]) -> None:
        """Read the metrics and the clock."""
        now = time.perf_counter()
        self._redraw_at = now + self.every
        self._pace.mark(now, self._batches, state.samples_seen)
        self._sight = self._sight.at(state.epoch + 1, self._batches, metrics, self._pace)


class Lines(_Moving):
    """A line per epoch, on standard error; within an epoch, one each `LINE_SECONDS`."""

    every = LINE_SECONDS

    def __init__(self) -> None:
        super().__init__()
        self._line_at: float | None = None  # the first micro-batch begins the clock

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Print the record."""
        self.say(epoch_line(record, epochs=self._sight.epochs))

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
                self._print(self._sight.line())
            self._line_at = now + self.every
        self._redraw_at = self._line_at

    def _print(self, text: str) -> None:
        if not self._gone:
            with self._writing():
                print(text, file=sys.stderr, flush=True)


class Bar(_Moving):
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
        self._print(epoch_line(record, self._console.width, epochs=self._sight.epochs))

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
            self._live.update(self._sight, refresh=True)
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


def display(progress: bool | None) -> Display:
    """The display for a choice: True, False, or None for a bar on a terminal and lines elsewhere."""
    if progress is False or sys.stderr is None:
        return Display()
    return Bar() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines()


def format_value(value: Any) -> str:
    """A number for people: 4 digits, integers whole.

    Example:
        >>> format_value(0.123456), format_value(12), format_value(3e-7)
        ('0.1235', '12', '3e-07')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
