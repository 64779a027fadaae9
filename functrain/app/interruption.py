"""Ctrl-C and SIGTERM: whatever libraries make of them, the command ends with 130 or 143 and one line.

A KeyboardInterrupt can come up anywhere: in a destructor, where Python prints and forgets it, or in a library that
catches it or raises another error in its place. So the handler remembers that it came. (While a run trains,
`functrain.loop.process.signals` has handlers of its own.)
"""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The same Ctrl-C reaches a process twice where a launcher hands it on.
REPEATS_WITHIN = 1.0  # seconds


class Interruption:
    """Raises KeyboardInterrupt at the first of `SIGNALS`, and ends the process at the second.

    Args:
        is_the_process: whether the process has nothing else to do; else its handlers stay as they are.
        quiet: say nothing; another rank does.

    Attributes:
        came: the signal that came, or 0.
    """

    def __init__(self, *, is_the_process: bool, quiet: bool) -> None:
        self.came = 0
        self._quiet = quiet
        # A shell's background job ignores Ctrl-C, which is meant for the one in front.
        heeded = tuple(number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)
        alone = is_the_process and threading.current_thread() is threading.main_thread()
        self._signals: tuple[int, ...] = heeded if alone else ()
        self._process = os.getpid()
        self._at_once = False
        self._again = False
        self._last = 0.0
        self._usual_unraisable: Callable[[Any], Any] = sys.unraisablehook

    def __enter__(self) -> Self:
        if self._signals:
            sys.unraisablehook = self._unraisable
        for number in self._signals:
            signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in self._signals:  # all is done: no traceback from Python's shutting down
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)

    def run(self, command: Callable[[], int]) -> int:
        """What the command returns, or 128 + signal. Its errors pass, unless they came of the interruption."""
        try:
            with self:
                try:
                    code = command()
                except Exception as error:
                    if not self.came:
                        raise
                    raise KeyboardInterrupt from error
                if self.came:
                    raise KeyboardInterrupt
                return code
        except KeyboardInterrupt:
            exec("")  # clears Python's mark that an exec() was interrupted, by which the exit code would become -SIGINT
            if not self._quiet:
                print("\nfunctrain: interrupted", file=sys.stderr, flush=True)
            return 128 + (self.came or signal.SIGINT)

    def at_once(self, whether: bool) -> None:
        """Let the first signal end the process: while libraries load, which may swallow a KeyboardInterrupt."""
        self._at_once = whether

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker: its parent says it
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        again, self._again = self._again, False
        repeated = self.came and time.monotonic() - self._last < REPEATS_WITHIN
        if self._at_once or (self.came and not again and not repeated):
            os.write(2, b"" if self._quiet else b"\nfunctrain: interrupted\n")
            os._exit(128 + number)
        if again or not self.came:
            self.came, self._last = self.came or number, time.monotonic()
            raise KeyboardInterrupt

    def _unraisable(self, unraisable: Any) -> None:
        """What Python cannot raise where it is: an interruption is raised in the main thread instead."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            # A little later: here it would be lost again.
            self._again = True
            _thread.start_new_thread(_interrupt_main_soon, (self.came or signal.SIGINT,))
        else:
            self._usual_unraisable(unraisable)


def _interrupt_main_soon(number: int) -> None:
    time.sleep(0.01)
    if hasattr(signal, "pthread_kill"):  # ends a wait in the main thread, too
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main()
