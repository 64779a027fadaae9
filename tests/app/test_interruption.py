"""Whatever libraries make of a KeyboardInterrupt, an interrupted command ends with 130 (143) and one line."""

import signal
import sys
import time

import pytest

from functrain.app.interruption import SIGNALS, Interruption


@pytest.fixture
def run(capsys):
    """Run a command as the process's: its exit code, and what it printed."""
    handlers, hook = {number: signal.getsignal(number) for number in SIGNALS}, sys.unraisablehook

    def run(command):
        code = Interruption(is_the_process=True, quiet=False).run(command)
        return code, capsys.readouterr().err.strip()

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    sys.unraisablehook = hook


sent = signal.SIGINT


def interrupt():
    signal.raise_signal(sent)


def swallowed():
    try:
        interrupt()
    except BaseException:
        return 0
    return 7


def turned_into_another_error():
    try:
        interrupt()
    except BaseException:
        raise ValueError("the loop is closed") from None


class Interrupted:
    def __del__(self):
        interrupt()


def in_a_destructor():
    Interrupted()
    time.sleep(10)
    return 7


def in_a_destructor_and_swallowed_again():
    try:
        in_a_destructor()
    except BaseException:
        return 0
    return 7


def twice_at_once():
    try:
        interrupt()
    except KeyboardInterrupt:
        interrupt()
    return 0


@pytest.mark.parametrize(
    "command",
    [
        interrupt,
        swallowed,
        turned_into_another_error,
        in_a_destructor,
        in_a_destructor_and_swallowed_again,
        twice_at_once,
    ],
)
@pytest.mark.parametrize("number", SIGNALS)
def test_an_interruption_is_never_lost(run, command, number, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "sent", number)
    assert run(command) == (128 + number, "functrain: interrupted")
    assert signal.getsignal(number) in (signal.SIG_IGN, signal.SIG_DFL)  # no traceback from Python's shutting down


def test_other_results_and_errors_pass(run):
    assert run(lambda: 3) == (3, "")
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_a_background_job_ignores_what_its_shell_ignores(run):
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def command():
        interrupt()
        return 3

    assert run(command) == (3, "")
