"""The progress display: what a terminal of a given width shows, and what a step pays for it."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.loop.output import elapsed, progress
from functrain.loop.output.progress_line import LiveLine, Pace, epoch_line

RECORD = {"kind": "epoch", "epoch": 12, "step": 204, "samples": 12936, "train_loss": 0.52331, "train_accuracy": 1.0}
RECORD |= {"eval_loss": 0.53881, "eval_accuracy": 0.99444}
METRICS = {"loss": torch.tensor(0.5191), "accuracy": torch.tensor(0.98437), "grad_norm": torch.tensor(1.0)}
METRICS |= {"lr": torch.tensor(9.5e-3), "skipped": torch.tensor(0.0)}


class Screen:
    """What a terminal shows of the control codes that the display uses; as wide as it is told."""

    def __init__(self, width: int) -> None:
        self.width, self.rows, self.row, self.column = width, [""], 0, 0

    def feed(self, text: str) -> None:
        for code, count, letter, plain in re.findall(r"(\x1b\[\??([\d;]*)([A-Za-z]))|([^\x1b])", text):
            if plain:
                self._put(plain)
            elif letter == "A":
                self.row -= int(count or 1)
            elif letter == "J":
                del self.rows[self.row + 1 :]
                self.rows[self.row] = self.rows[self.row][: self.column]
            elif letter == "K":
                self.rows[self.row] = ""
            else:
                assert letter in "mhl", code

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
            return
        if character == "\n" or self.column == self.width:
            self.row, self.column = self.row + 1, 0
            self.rows += [""] * (self.row + 1 - len(self.rows))
        if character != "\n":
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def lines(self) -> list[str]:
        return [row.rstrip() for row in self.rows if row.strip()]


class Terminal:
    """A pseudo-terminal in the place of standard error."""

    def __init__(self) -> None:
        self._reader, self._writer = pty.openpty()
        os.set_blocking(self._reader, False)
        self.stderr = os.fdopen(self._writer, "w", encoding="utf-8")
        self._stdin = os.dup(0)
        os.dup2(self._writer, 0)  # where rich looks first for the width
        self.screen = Screen(80)
        self.text = ""

    def resize(self, width: int) -> None:
        fcntl.ioctl(self._writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.screen.width = width

    def lines(self) -> list[str]:
        """What is on the screen."""
        self.read()
        return self.screen.lines()

    def read(self) -> None:
        """Take what was written; a terminal that is not read soon lets its writer wait."""
        self.stderr.flush()
        with contextlib.suppress(BlockingIOError):
            while True:
                text = os.read(self._reader, 65536).decode()
                self.screen.feed(text)
                self.text += text

    def hang_up(self) -> None:
        """Nobody reads it any more, and writing to it is an error."""
        os.close(self._reader)
        self._reader = -1

    def close(self) -> None:
        os.dup2(self._stdin, 0)
        os.close(self._stdin)
        with contextlib.suppress(OSError):
            self.stderr.close()
        if self._reader >= 0:
            os.close(self._reader)


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


def make_state(**counters: Any) -> ft.TrainState:
    state = ft.init_state(nn.Linear(1, 1), ft.regression(), ft.optim.sgd(0.1))
    return state.replace(**counters)


def train(terminal: Terminal, bar: progress.Display, steps: range, forward: Callable[[float], None]) -> None:
    for step in steps:
        forward(1.0)
        bar.step(make_state(epoch=step // 17, samples_seen=64 * step), METRICS)
        terminal.read()


LINES = {
    20: "epoch 12/20  ━━━━━━━",
    40: "epoch 12/20  ━━━━━━━━━━  59%  loss 0.519",
    60: "epoch 12/20  ━━━━━━━━  loss 0.519  accuracy 0.984  2:20 left",
    80: "epoch 12/20  ━━━━━━━━━  59%  loss 0.519  accuracy 0.984  64 samples/s  2:20 left",
    120: f"epoch 12/20  {'━' * 37}  59%  loss 0.519  accuracy 0.984  lr 9.5e-03  64 samples/s  2:20 left",
    200: f"epoch 12/20  {'━' * 40}  59%  loss 0.519  accuracy 0.984  lr 9.5e-03  64 samples/s  2:20 left",
}


@pytest.mark.parametrize("ending", ["step", "say", "close"])
def test_while_it_compiles_time_is_seen_to_go_by_and_nothing_is_left_of_that(
    open_terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(elapsed, "EVERY", 0.01)
    terminal = open_terminal(80)
    bar = progress.display(True)
    bar.start(make_state(), 34, 0, 2)
    bar.busy("compiling the update step ...")
    deadline = time.monotonic() + 30
    while len(terminal.lines()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    compiling, clock = terminal.lines()
    assert (compiling, clock[:5]) == ("compiling the update step ...", "  0:0")
    {"step": lambda: bar.step(make_state(), METRICS), "say": lambda: bar.say("done"), "close": bar.close}[ending]()
    after = terminal.lines()
    assert after[0] == compiling
    assert [line.split("  ")[0] for line in after[1:]] == {"step": ["epoch 1/2"], "say": ["done"], "close": []}[ending]
    bar.close()
    assert terminal.lines() == [compiling, "done"][: 1 + (ending == "say")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("elapsed")]


@pytest.mark.parametrize("width", LINES)
def test_the_line_fits_any_width_and_drops_the_less_important_fields(
    open_terminal: Callable[[int], Terminal], moments: Callable[[float], None], width: int
) -> None:
    terminal = open_terminal(width)
    bar = progress.display(None)
    bar.start(make_state(), 340, 0, 20)
    train(terminal, bar, range(1, 201), moments)
    assert terminal.lines() == [LINES[width]]
    assert len(LINES[width]) <= width
    bar.close()


def test_epoch_lines_stay_above_the_line_and_the_end_leaves_only_them(
    open_terminal: Callable[[int], Terminal], moments: Callable[[float], None]
) -> None:
    terminal = open_terminal(80)
    bar = progress.display(True)
    bar.start(make_state(), 34, 0, 2)
    bar.say("compiling the update step ...")
    train(terminal, bar, range(1, 18), moments)
    bar.epoch(RECORD)
    print("a callback's own words", file=sys.stderr)
    train(terminal, bar, range(18, 35), moments)
    said = [
        "compiling the update step ...",
        "epoch 12  train loss 0.5233 accuracy 1.0000  eval loss 0.5388 accuracy 0.9944",
        "a callback's own words",
    ]
    assert terminal.lines()[:-1] == said
    assert terminal.lines()[-1].startswith("epoch 3/2  ━")
    bar.close()
    assert terminal.lines() == said
    assert sys.stderr is terminal.stderr


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_training_goes_on_without_a_display_when_nobody_reads_it_any_more(
    open_terminal: Callable[[int], Terminal], monkeypatch: pytest.MonkeyPatch, on_a_terminal: bool
) -> None:
    terminal = open_terminal(80)
    reader, writer = os.pipe()
    pipe = os.fdopen(writer, "w", buffering=1)
    if not on_a_terminal:
        monkeypatch.setattr(sys, "stderr", pipe)

    @ft.on("after_step")
    def close(event: ft.Event) -> None:
        if event.state.step == 2:
            terminal.hang_up()
            os.close(reader)

    data = [(torch.ones(4, 1), torch.zeros(4, 1))] * 4
    state = make_state()
    result = ft.fit(state, data, epochs=2, compile=False, callbacks=[close])
    assert (result.stopped_by, result.state.step) == ("epochs", 8)
    with pytest.raises(OSError, match=r"Broken pipe|Input/output error"):
        print("this terminal or pipe is closed", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        pipe.close()


def test_a_terminal_that_is_resized_gets_a_line_of_its_width(
    open_terminal: Callable[[int], Terminal], moments: Callable[[float], None]
) -> None:
    terminal = open_terminal(80)
    bar = progress.display(None)
    bar.start(make_state(), 340, 0, 20)
    done = 0
    for width in (120, 60, 100):
        terminal.resize(width)
        train(terminal, bar, range(done + 1, done + 3), moments)
        done += 2
        last = terminal.text.split("\x1b[J")[-1]
        shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\r", "", last)
        assert width - 12 < len(shown) <= width
    bar.close()


def test_a_resumed_run_counts_from_where_it_was(
    open_terminal: Callable[[int], Terminal], moments: Callable[[float], None]
) -> None:
    terminal = open_terminal(80)
    bar = progress.display(None)
    bar.start(make_state(epoch=10, samples_seen=64 * 170), 340, 170, 20)
    train(terminal, bar, range(171, 174), moments)
    assert "  64 samples/s  2:47 left" in terminal.lines()[-1]
    assert terminal.lines()[-1].startswith("epoch 11/20")
    bar.close()


def test_without_a_known_end_there_is_neither_bar_nor_time_left(
    open_terminal: Callable[[int], Terminal], moments: Callable[[float], None]
) -> None:
    terminal = open_terminal(80)
    bar = progress.display(None)
    bar.start(make_state(), None, 0)
    train(terminal, bar, range(1, 4), moments)
    assert terminal.lines() == ["epoch 1  loss 0.519  accuracy 0.984  lr 9.5e-03  64 samples/s"]
    bar.close()


def test_a_pause_and_the_first_micro_batch_do_not_count_for_the_speed() -> None:
    pace = Pace()
    pace.mark(1000.0, 1, 64)  # the first compilation took so long
    pace.mark(1001.0, 2, 128)
    pace.pause(1001.0)
    pace.mark(1500.0, 2, 128)
    pace.mark(1501.0, 3, 192)
    assert (pace.rate(), pace.seconds_left(13)) == (64.0, 10.0)


def test_a_learning_rate_that_is_missing_within_a_window_stays() -> None:
    pace = Pace()
    live_line = LiveLine().at(1, 1, METRICS, pace).at(1, 2, {"loss": torch.tensor(0.25)}, pace)
    assert (live_line.fields["lr"], live_line.fields["loss"]) == ("lr 9.5e-03", "loss 0.250")


def test_elsewhere_there_is_a_line_an_epoch_and_no_control_code(
    monkeypatch: pytest.MonkeyPatch, open_terminal: Callable[[int], Terminal]
) -> None:
    terminal = open_terminal(80)
    assert isinstance(progress.display(None), progress.Bar)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress.display(None), progress.Lines)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = progress.display(None)
    lines.start(make_state(), 340, 0, 20)
    lines.step(make_state(), METRICS)
    lines.epoch(RECORD)
    lines.close()
    expected = "epoch 12  train loss 0.5233 accuracy 1.0000  eval loss 0.5388 accuracy 0.9944\n"
    assert (sys.stderr.getvalue(), terminal.lines()) == (expected, [])
    assert type(progress.display(False)) is progress.Display


def test_elsewhere_a_long_epoch_has_a_line_each_half_minute(
    monkeypatch: pytest.MonkeyPatch, moments: Callable[[float], None]
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    lines = progress.display(None)
    lines.start(make_state(), 340, 0, 20)
    for step in range(1, 64):
        moments(1.0)
        lines.step(make_state(epoch=11, samples_seen=64 * step), METRICS)
    lines.epoch(RECORD)
    for step in range(64, 94):
        moments(1.0)
        lines.step(make_state(epoch=12, samples_seen=64 * step), METRICS)
    # The first step begins the clock, the end of an epoch does so anew. The second between the epoch's line and the
    # next step does not count: 92 steps in 91 s, and (340 - 93) * 91 / 92 s are left.
    assert sys.stderr.getvalue().splitlines() == [
        "epoch 12/20   9%  loss 0.519  accuracy 0.984  lr 9.5e-03  64 samples/s  5:09 left",
        "epoch 12/20  18%  loss 0.519  accuracy 0.984  lr 9.5e-03  64 samples/s  4:39 left",
        "epoch 12  train loss 0.5233 accuracy 1.0000  eval loss 0.5388 accuracy 0.9944",
        "epoch 13/20  27%  loss 0.519  accuracy 0.984  lr 9.5e-03  65 samples/s  4:04 left",
    ]


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_columns_do_not_shift_at_the_tenth_epoch(
    monkeypatch: pytest.MonkeyPatch, open_terminal: Callable[[int], Terminal], on_a_terminal: bool
) -> None:
    terminal = open_terminal(80)
    if not on_a_terminal:
        monkeypatch.setattr(sys, "stderr", io.StringIO())
    shown = progress.display(None)
    shown.start(make_state(), None, 0, 20)
    for epoch in (9, 10):
        shown.epoch(RECORD | {"epoch": epoch})
    lines = terminal.lines() if on_a_terminal else sys.stderr.getvalue().splitlines()
    assert [line[:20] for line in lines] == ["epoch  9  train loss", "epoch 10  train loss"]
    shown.close()


def test_what_ends_a_run_early_is_said_below_its_epochs_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    data = [(torch.ones(4, 1), torch.zeros(4, 1))]
    state = ft.init_state(nn.Linear(1, 1), ft.regression(), ft.optim.sgd(1e-30))
    rule = ft.optim.early_stopping(patience=1)
    result = ft.fit(state, data, epochs=9, compile=False, early_stopping=rule)
    assert result.stopped_by == "early_stopping"
    lines = sys.stderr.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", "1"], ["epoch", "2"], ["early", "stopping:"]]
    assert lines[-1].endswith("for 1 evaluation")


def test_long_records_go_into_lines_that_fit() -> None:
    record = RECORD | {"ema_loss": 0.7, "ema_accuracy": 0.5}
    assert epoch_line(record, 80).splitlines() == [
        "epoch 12  train loss 0.5233 accuracy 1.0000  eval loss 0.5388 accuracy 0.9944",
        "          ema loss 0.7000 accuracy 0.5000",
    ]
    assert "\n" not in epoch_line(record)
    assert epoch_line(RECORD | {"kind": "final"}).startswith("step 204  train loss")


def test_a_step_that_does_not_redraw_costs_next_to_nothing(open_terminal: Callable[[int], Terminal]) -> None:
    open_terminal(80)
    threads = threading.active_count()  # earlier tests may have left some
    bar = progress.Bar()
    state = make_state()
    bar.start(state, 10**6, 0, 1)
    bar.step(state, METRICS)
    bar._redraw_at = float("inf")
    times = []
    for _ in range(20):
        before = time.perf_counter()
        for _ in range(1000):
            bar.step(state, METRICS)
        times.append((time.perf_counter() - before) / 1000)
    assert min(times) < 0.5e-6
    assert threading.active_count() == threads  # nobody redraws behind the loop's back
    bar.close()
