"""Start the ranks of `--nproc`, hand signals on to them, and end all of them when one has failed."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import IO

from functrain.app.launching.causes import Failure, failed, failure_of
from functrain.app.launching.processes import Rank, environment
from functrain.app.lifeline import python

POLL = 0.05  # seconds
SETTLE = 4.0  # seconds in which the other ranks end by themselves after a failure, and say why
# A rank that has not joined the others has nothing to save, and may wait for them where no signal reaches it.
UNJOINED = 2.0  # seconds
REPEATS_WITHIN = 1.0  # seconds, as in functrain.loop.process.signals
_HANGUP = getattr(signal, "SIGHUP", None)
_STOP = getattr(signal, "SIGTSTP", None)
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name))


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run a command of functrain in several processes on this machine.

    The processes reach each other over the loopback interface, and nothing listens on another one.

    Args:
        arguments: of the command.
        processes: how many.

    Returns:
        The exit code: that of the ranks if all ended alike; else 128 + signal for a rank that a signal ended, and that
        of the rank that failed first.
    """
    return Launcher(python("functrain.app.launching.rank", *arguments), processes, sys.stderr).run()


class Launcher:
    """Starts ranks and waits for them.

    Args:
        command: what each of them runs.
        processes: how many.
        error: where the launcher, and the ranks but the first, write their lines.
    """

    def __init__(self, command: Sequence[str], processes: int, error: IO[str]) -> None:
        self._command, self._processes, self._error = command, processes, error
        self._ranks: list[Rank] = []
        self._told: int | None = None
        self._last: int | None = None
        self._came = 0.0
        self._handed_on = False

    def run(self) -> int:
        """Start the ranks and wait until all have ended; returns the exit code."""
        with TemporaryDirectory(prefix="functrain-ranks-", ignore_cleanup_errors=True) as folder, self._signals():
            try:
                for rank in range(self._processes):
                    variables = environment(rank, self._processes, Path(folder))
                    self._ranks.append(
                        Rank(self._command, variables, rank=rank, folder=Path(folder), error=self._error)
                    )
                    if self._told is not None:
                        self._hand_on(self._told)
                return self._wait()
            finally:
                for each in self._ranks:
                    each.kill()
                for each in self._ranks:
                    each.drain(1.0)

    def _wait(self) -> int:
        while running := [each for each in self._ranks if each.poll()]:
            if any(failed(each.code, self._told) for each in self._ranks):
                return self._conclude()
            self._end_unjoined(running)
            time.sleep(POLL)
        if any(failed(each.code, self._told) for each in self._ranks):
            return self._conclude()
        first = self._ranks[0].code
        if first is not None and first < 0:  # it had no time to say so
            print("\nfunctrain: interrupted", file=self._error, flush=True)
        return next((128 + (self._told or 0) if code < 0 else code for each in self._ranks if (code := each.code)), 0)

    def _conclude(self) -> int:
        """A rank has failed: let the others end, then end them, and tell the cause once."""
        until = time.monotonic() + SETTLE
        while any(each.poll() for each in self._ranks) and time.monotonic() < until:
            time.sleep(POLL)
        failure = failure_of(self._ranks, self._told)
        for each in self._ranks:
            each.kill()
        for each in self._ranks:
            each.drain(0.5)  # what they have said comes first
        self._tell(failure)
        return failure.code

    def _tell(self, failure: Failure) -> None:
        for line in failure.lines:
            print(line, file=self._error)
        self._error.flush()

    def _end_unjoined(self, running: Sequence[Rank]) -> None:
        """After a signal, end ranks that wait for others to join them: they have nothing to save.

        Ranks that have joined agree among themselves, also where one alone has got the signal.
        """
        if all(each.has_joined for each in self._ranks):
            return
        code = next((each.code for each in self._ranks if each.code is not None and each.code > 128), None)
        if self._told is None and code is not None:
            self._told, self._came = code - 128, time.monotonic()
            self._hand_on(self._told)
        if self._told is not None and time.monotonic() - self._came > UNJOINED:
            for each in running:
                each.kill()

    def _hand_on(self, number: int) -> None:
        for each in self._ranks:
            each.send(number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        """Hand a signal on; a second one ends all ranks at once."""
        if number == self._last and time.monotonic() - self._came < REPEATS_WITHIN:
            return
        if self._told is not None and number == _HANGUP:
            return
        again = self._last not in (None, _HANGUP)
        self._told = self._told or number
        self._came, self._last = time.monotonic(), number
        if again:
            for each in self._ranks:
                each.send_all(signal.SIGKILL)
        else:
            self._hand_on(number)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: the ranks stop, and go on with the launcher."""
        for each in self._ranks:
            each.send_all(signal.SIGSTOP)
        signal.raise_signal(signal.SIGSTOP)
        for each in self._ranks:
            each.send_all(signal.SIGCONT)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        handlers: dict[int, Callable[[int, FrameType | None], None]] = dict.fromkeys(SIGNALS, self._handle)
        if _STOP is not None:
            handlers[_STOP] = self._stop
        before = {}
        for number, handler in handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`, and a job in a script's background
                before[number] = signal.signal(number, handler)
        try:
            yield
        finally:
            for number, usual in before.items():
                signal.signal(number, usual if usual is not None else signal.SIG_DFL)
