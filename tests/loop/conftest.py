"""A terminal, and a clock, for the tests of the display."""

import sys
from collections.abc import Callable, Iterator

import pytest
from terminals import Terminal

from functrain.loop.output import progress


@pytest.fixture
def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Terminal]]:
    """Puts a terminal in the place of standard error. Called in the test: before it, pytest sets its own."""
    terminals: list[Terminal] = []

    def open_terminal(width: int) -> Terminal:
        terminals.append(terminal := Terminal())
        terminal.resize(width)
        monkeypatch.delenv("COLUMNS", raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setattr(sys, "stderr", terminal.stderr)
        return terminal

    yield open_terminal
    for terminal in terminals:
        terminal.close()


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still until it is set forward."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward
