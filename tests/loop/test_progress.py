"""The progress display: what a terminal of a given width shows, and what a step pays for it."""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable

import pytest
import torch
from terminals import METRICS, RECORD, Terminal, make_state, train

import functrain as ft
from functrain.loop.output import elapsed, progress
from functrain.loop.output.progress_line import LiveLine, Pace

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
