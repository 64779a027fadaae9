"""Signals: an INTERRUPTED snapshot, the exit code, and the way back."""

import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import loop_helpers
import pytest
from loop_helpers import EXAMPLES, assert_same_bits, make_loader, make_state, quick_fit

import functrain as ft
from functrain.checkpoint import read_info
from functrain.step import Evaluation


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_ends_with_an_interrupted_snapshot_and_its_exit_code(number: int, tmp_path: Path) -> None:
    @ft.on("after_step")
    def send(event: ft.Event) -> None:
        if event.state.step == 2:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(ft.Interrupted) as caught:
        quick_fit(make_state(), make_loader(), epochs=2, callbacks=[send], run_dir=tmp_path)
    assert caught.value.code == 128 + number
    assert caught.value.result.stopped_by == "signal"
    assert signal.getsignal(number) is handler
    info = read_info(tmp_path / "checkpoints" / "last")
    assert (info.status, info.step) == ("INTERRUPTED", 2)
    resumed = quick_fit(make_state(), make_loader(), epochs=2, run_dir=tmp_path)
    assert_same_bits(resumed.state, quick_fit(make_state(), make_loader(), epochs=2).state)


def test_the_same_signal_twice_within_a_second_is_one(tmp_path: Path) -> None:
    @ft.on("after_step")
    def send(event: ft.Event) -> None:
        if event.state.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(ft.Interrupted) as caught:
        quick_fit(make_state(), make_loader(), epochs=2, callbacks=[send], run_dir=tmp_path)
    assert caught.value.code == 130
    assert read_info(tmp_path / "checkpoints" / "last").status == "INTERRUPTED"


@pytest.mark.parametrize(
    ("first", "second", "wait", "code"),
    [
        ("SIGINT", "SIGINT", 0.0, 0),
        ("SIGINT", "SIGINT", 1.1, 130),
        ("SIGINT", "SIGTERM", 0.0, 143),
        ("SIGTERM", "SIGHUP", 0.0, 0),
        ("SIGHUP", "SIGHUP", 1.1, 0),
        ("SIGHUP", "SIGTERM", 0.0, 0),
    ],
    ids=[
        "a repeat at once is none",
        "a repeat after a second",
        "another signal at once",
        "the end of a session",
        "a terminal closed twice",
        "a closed terminal, then the end of the session",
    ],
)
def test_a_second_signal_ends_the_process_at_once(first: str, second: str, wait: float, code: int) -> None:
    program = f"""
import os, signal, time
from functrain.loop.process.signals import SignalFlag
with SignalFlag() as flag:
    os.kill(os.getpid(), signal.{first})
    assert flag.number == signal.{first}
    time.sleep({wait})
    os.kill(os.getpid(), signal.{second})
    assert flag.number == signal.{first}
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == code


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    @ft.on("after_step")
    def hang_up(event: ft.Event) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        result = quick_fit(make_state(), make_loader(), epochs=1, callbacks=[hang_up])
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert result.stopped_by == "epochs"


def test_a_closed_terminal_leaves_an_interrupted_snapshot(tmp_path: Path) -> None:
    program = f"""
import fcntl, os, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal of this session, which gets SIGHUP when it is closed
sys.path.insert(0, {str(Path(loop_helpers.__file__).parent)!r})
from loop_helpers import make_loader, make_state
import functrain as ft

@ft.on("after_step")
def wait(event):
    if event.state.step == 2:
        open({str(tmp_path / "ready")!r}, "w").close()
        while os.isatty(0):
            time.sleep(0.01)
ft.fit(make_state(), make_loader(), epochs=1, compile=False, callbacks=[wait], run_dir={str(tmp_path / "run")!r})
"""
    terminal, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    child = subprocess.Popen([sys.executable, "-c", program], **streams, start_new_session=True)
    os.close(slave)
    deadline = time.monotonic() + 120
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.close(terminal)
    assert child.wait(120) == 129
    info = read_info(tmp_path / "run" / "checkpoints" / "last")
    assert (info.status, info.step) == ("INTERRUPTED", 2)


def test_when_the_time_is_up_the_run_ends_with_75_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    @ft.on("after_step")
    def slow(event: ft.Event) -> None:
        time.sleep(0.1)

    options = {"epochs": 2, "run_dir": tmp_path, "callbacks": [slow], "max_time": 0.35}
    for _ in range(2):
        with pytest.raises(ft.Interrupted) as caught:
            quick_fit(make_state(), make_loader(), **options)
        assert caught.value.code == 75
        assert caught.value.result.stopped_by == "time"
        info = read_info(tmp_path / "checkpoints" / "last")
        assert (info.status, info.step) == ("INTERRUPTED", caught.value.result.state.step)
    result = quick_fit(make_state(), make_loader(), **{**options, "max_time": 600})
    assert result.stopped_by == "epochs"
    assert_same_bits(result.state, quick_fit(make_state(), make_loader(), epochs=2).state)
    stopped = quick_fit(make_state(), make_loader(), epochs=9, max_time=1e-9, on_signal="return")
    assert (stopped.stopped_by, stopped.state.step) == ("time", 0)


@pytest.mark.parametrize("during", ["training", "evaluation"])
def test_a_signal_that_also_ends_the_workers_saves_its_snapshot(
    during: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*_: Any) -> None:
        # From another process: torch's workers end quietly if it was their parent who told them to.
        numbers = [os.getpid(), *(worker.pid for worker in multiprocessing.active_children())]
        subprocess.run(["kill", "-TERM", *map(str, numbers)], check=True)
        time.sleep(0.3)  # the workers' ends reach this process here, where nobody expects an exception

    def evaluate(*arguments: Any) -> Any:
        send()
        return plain(*arguments)

    loaders = {"loader": make_loader(num_workers=1), "eval_loader": make_loader(8, num_workers=1)}
    options = {"epochs": 1, "run_dir": tmp_path, **loaders}
    plain = Evaluation.each
    if during == "evaluation":
        monkeypatch.setattr(Evaluation, "each", evaluate)
    callbacks = [ft.on("after_step")(send)] if during == "training" else []
    with pytest.raises(ft.Interrupted) as caught:
        quick_fit(make_state(), callbacks=callbacks, **options)
    assert caught.value.code == 143
    assert read_info(tmp_path / "checkpoints" / "last").status == "INTERRUPTED"
    monkeypatch.undo()
    resumed = quick_fit(make_state(), **options)
    assert_same_bits(resumed.state, quick_fit(make_state(), make_loader(), epochs=1).state)


def test_a_signal_during_evaluation_resumes_before_it(tmp_path: Path) -> None:
    class Interrupting:
        def __iter__(self) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            yield from make_loader(EXAMPLES)

    arguments = {"epochs": 2, "run_dir": tmp_path}
    stopped = quick_fit(make_state(), make_loader(), eval_loader=Interrupting(), on_signal="return", **arguments)
    assert (stopped.stopped_by, stopped.state.epoch, stopped.state.batch_idx) == ("signal", 0, 6)
    resumed = quick_fit(make_state(), make_loader(), eval_loader=make_loader(EXAMPLES), **arguments)
    whole = quick_fit(make_state(), make_loader(), eval_loader=make_loader(EXAMPLES), epochs=2)
    assert_same_bits(resumed.state, whole.state)
    assert resumed.history == whole.history


@pytest.mark.parametrize("save_every", [None, 1])
def test_a_signal_in_the_evaluation_that_ends_a_run_brings_its_record_at_the_next_start(
    save_every: int | None, tmp_path: Path
) -> None:
    class Interrupting:
        def __iter__(self) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            yield from make_loader(EXAMPLES)

    arguments = {"steps": 4, "run_dir": tmp_path, "save_every": save_every}
    with pytest.raises(ft.Interrupted) as caught:
        quick_fit(make_state(), make_loader(), eval_loader=Interrupting(), **arguments)
    assert (caught.value.code, caught.value.result.stopped_by) == (143, "signal")
    assert read_info(tmp_path / "checkpoints" / "last").status == "INTERRUPTED"
    resumed = quick_fit(make_state(), make_loader(), eval_loader=make_loader(EXAMPLES), **arguments)
    whole = quick_fit(make_state(), make_loader(), eval_loader=make_loader(EXAMPLES), steps=4)
    assert_same_bits(resumed.state, whole.state)
    assert (resumed.stopped_by, resumed.history) == ("steps", whole.history)
    last = read_info(tmp_path / "checkpoints" / "last")
    assert (last.status, last.metric) == ("COMPLETE", whole.history[-1]["eval_loss"])


def test_a_signal_after_the_last_save_leaves_the_finished_run_as_it_is(tmp_path: Path) -> None:
    @ft.on("after_loop")
    def send(event: ft.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path, callbacks=[send])
    names = [(info.name, info.status) for info in ft.Checkpointer(tmp_path / "checkpoints", read_only=True).infos()]
    assert names == [("step-00000006", "COMPLETE")]
