"""Progress where no terminal is: a line an epoch, and what the lines hold."""

import io
import sys
from collections.abc import Callable

import pytest
import torch
from terminals import METRICS, RECORD, Terminal, make_state
from torch import nn

import functrain as ft
from functrain.loop.output import progress
from functrain.loop.output.progress_line import epoch_line


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
