"""Signals, and a limit of time, that end a run in good order.

The handler only sets a flag; the loop looks at it where the state is whole. A second signal of the
same run ends the process at once: whatever is on disk by then is complete, as checkpoints appear atomically.
The same signal again within a second is no second one: launchers deliver one Ctrl-C, or one end of a job, twice.
SIGHUP, which a closed terminal sends, is never the one that ends the process at once: nobody is there to be impatient,
and a system that ends a session sends SIGTERM and SIGHUP right after each other. `nohup` ignores it, and so does a run.

A signal to the whole process group also ends the loader's workers. torch's handler of SIGCHLD then raises wherever the
process is, in the middle of a save too; while a run ends in good order that handler is put aside.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))

# torchrun and srun hand a signal on to processes that it may have reached already, milliseconds later.
REPEATS_WITHIN = 1.0  # seconds

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none

# EX_TEMPFAIL of BSD's sysexits.h: try again later. No signal's code, nor one of Python's or a shell's.
TIME_IS_UP = 75


class Interrupted(SystemExit):
    """Raised by `fit` after a signal or at the end of `max_time`, when the INTERRUPTED snapshot is on disk.

    Uncaught it ends the process with 128 + signal (130, 143, 138, 129), or with 75 when the time was up.

    Attributes:
        result: the `FitResult` so far.
    """

    def __init__(self, code: int, result: Any) -> None:
        super().__init__(code)
        self.result = result


class SignalFlag:
    """Catches `SIGNALS` while entered, and remembers the first; SIGHUP stays ignored where it was.

    Handlers are installed in the main thread only, as Python demands; elsewhere the flag stays down.

    Args:
        max_time: seconds from now after which the flag is up; None for no limit.
        interactive: a second SIGINT raises KeyboardInterrupt: the process holds a person's work and must not end.

    Attributes:
        number: the signal that came, or None.
    """

    def __init__(self, max_time: float | None = None, *, interactive: bool = False) -> None:
        self._interactive = interactive
        self.number: int | None = None
        self._last: int | None = None
        self._came = 0.0
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self._previous: dict[int, Any] = {}

    @property
    def is_up(self) -> bool:
        """Whether a signal came, or the limit is reached."""
        return self.number is not None or (self._deadline is not None and time.monotonic() >= self._deadline)

    def __enter__(self) -> "SignalFlag":
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number == _HANGUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == self._last and time.monotonic() - self._came < REPEATS_WITHIN:
            return
        if self.number is not None and number == _HANGUP:
            return
        if self._last is not None and self._interactive and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._last not in (None, _HANGUP):
            with suppress(OSError):
                if sys.stderr.isatty():
                    os.write(2, b"\x1b[?25h\n")  # the progress display hides the cursor
            os._exit(128 + number)
        self._came, self._last = time.monotonic(), number  # first: a repeat may come between these lines
        if self.number is None:
            self.number = number
        # In time: Python runs handlers in the order of their numbers, and this one's is high. (Windows has none.)
        if hasattr(signal, "SIGCHLD"):
            self._previous.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, _ignore))


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Nothing. (SIG_DFL would make Python complain about a signal that had come already.)"""
