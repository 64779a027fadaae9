"""What all progress displays have in common: when to show how far training is, and what."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from functrain.checkpoint import CheckpointInfo
from functrain.loop.output.progress_line import LiveLine, Pace
from functrain.step.state import TrainState


class Display:
    """Shows nothing: the base of the others, and the choice of `progress=False`. `fit(progress=...)` takes one, too.

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

    def checkpoint(self, info: CheckpointInfo) -> None:
        """A checkpoint is on disk; called in the thread that wrote it."""

    def say(self, text: str) -> None:
        """Tell the person something; until the next micro-batch time does not count for the speed shown."""

    def busy(self, text: str) -> None:
        """Tell the person what is being done that may take minutes; it is over at whatever is shown next."""
        self.say(text)

    def close(self) -> None:
        """Leave the terminal as it was."""


class Moving(Display):
    """What is common to displays that tell how far training is: when to say so, and what."""

    every: float

    def __init__(self) -> None:
        self._pace = Pace()
        self._live_line = LiveLine()
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
        self._live_line = LiveLine(epochs=epochs, total=total)
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
        self._live_line = self._live_line.at(state.epoch + 1, self._batches, metrics, self._pace)
