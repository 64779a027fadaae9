"""The progress display of a notebook: one output that is rewritten in place, with a curve on request.

It needs nothing but the kernel's own IPython, which is never imported where it is not at work.
"""

import html
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from functrain.loop.output.progress_line import epoch_line, exact
from functrain.loop.output.progress_moving import Moving
from functrain.step.state import TrainState

REDRAW_SECONDS = 0.5  # each is a message to the browser
MOST_LINES = 200
MOST_POINTS = 400  # of a curve, an inline SVG
WIDTH, HEIGHT, MARGIN = 480, 160, 8
COLORS = {"training loss": "#4c72b0", "validation loss": "#dd8452"}


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this process: a front end shows HTML then, which a terminal does not."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


class Curve:
    """The loss over the updates so far, as an SVG.

    Example:
        >>> curve = Curve()
        >>> curve.add("training loss", 1, 2.0)
        >>> curve.add("training loss", 2, 1.0)
        >>> curve.svg().count("<polyline")
        1
    """

    def __init__(self) -> None:
        self._points: dict[str, list[tuple[int, float]]] = {}

    def add(self, name: str, step: int, value: float) -> None:
        """Add a point; what is not finite has no place."""
        points = self._points.setdefault(name, [])
        if abs(value) < float("inf"):
            points.append((step, value))
        if len(points) > MOST_POINTS:
            del points[1:-1:2]

    def svg(self) -> str:
        """The curves, on one pair of axes; empty before there are two points."""
        every = [point for points in self._points.values() for point in points]
        if len({step for step, _ in every}) < 2:
            return ""
        (left, right), (low, high) = ((min(numbers), max(numbers)) for numbers in zip(*every))
        across, up = (WIDTH - 2 * MARGIN) / (right - left), (HEIGHT - 2 * MARGIN) / ((high - low) or 1.0)
        drawn = []
        for name, points in self._points.items():
            places = [(MARGIN + across * (x - left), HEIGHT - MARGIN - up * (y - low)) for x, y in points]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            drawn.append(f'<polyline points="{path}" fill="none" stroke="{COLORS[name]}" stroke-width="1.5"/>')
            drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{COLORS[name]}"/>' for x, y in places[-1:]]
        legend = " ".join(f'<span style="color:{COLORS[name]}">{name}</span>' for name in self._points)
        axes = f"{legend}, {exact(low)} to {exact(high)}, updates {left:,} to {right:,}"
        return f'<div>{axes}</div><svg width="{WIDTH}" height="{HEIGHT}">{"".join(drawn)}</svg>'


class Notebook(Moving):
    """A bar, the lines of the epochs and, on request, a curve, in one output of the cell."""

    every = REDRAW_SECONDS

    def __init__(self, *, curve: bool = False) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._curve = Curve() if curve else None
        self._handle: Any = None
        self._live = False

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Add the record's line."""
        if self._curve is not None and "eval_loss" in record:
            self._curve.add("validation loss", record["step"], record["eval_loss"])
        self._add(epoch_line(record, epochs=self._live_line.epochs))

    def say(self, text: str) -> None:
        """Add a line."""
        self._pace.pause(time.perf_counter())
        self._redraw_at = 0.0
        self._add(text)

    def close(self) -> None:
        """Leave the lines and the curve, without the bar."""
        self._live = False
        if self._handle is not None:
            self._show()

    def _draw(self, state: TrainState, metrics: Mapping[str, Any]) -> None:
        self._look(state, metrics)
        self._live = True
        if self._curve is not None:
            self._curve.add("training loss", state.step, float(metrics["loss"]))
        self._show()

    def _add(self, text: str) -> None:
        self._lines.append(text)
        self._show()

    def _show(self) -> None:
        from IPython.display import display

        parts = self._live_line.parts(200) if self._live else []
        now = "  ".join(text for name, text in parts if name != "bar")
        shown = self._lines[-MOST_LINES:]
        page = _page(shown, now, self._fraction(), "" if self._curve is None else self._curve.svg())
        output = {"text/html": page, "text/plain": "\n".join([*shown, now]).rstrip()}
        if self._handle is None:
            self._handle = display(output, raw=True, display_id=True)
        else:
            self._handle.update(output, raw=True)

    def _fraction(self) -> float | None:
        total = self._live_line.total
        return min(self._live_line.done / total, 1.0) if self._live and total else None


def _page(lines: Sequence[str], now: str, fraction: float | None, curve: str) -> str:
    """What the browser shows.

    Example:
        >>> _page(["epoch 1"], "loss <1", 0.5, "")
        '<progress value="0.5000" style="width:30em"></progress><pre>loss &lt;1\\nepoch 1</pre>'
    """
    bar = "" if fraction is None else f'<progress value="{fraction:.4f}" style="width:30em"></progress>'
    text = "\n".join([*([now] if now else []), *lines])
    return f"{bar}{curve}<pre>{html.escape(text)}</pre>"
