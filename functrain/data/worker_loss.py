"""The loss of a loader's worker process, raised where the next batch is drawn: never within a step or a save.

torch raises in its handler of SIGCHLD, wherever the process is at that moment. While a run trains, that error waits.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from functrain.foundation.errors import DataError

_TORCHS = "DataLoader worker (pid"  # the beginning of each message of torch's about a lost worker
_MEMORY = (
    "When memory runs out, the system kills processes without a word (see dmesg). Use fewer workers (num_workers), a "
    "smaller prefetch_factor, or data that are not copied into each worker"
)
_SHARED_MEMORY = "Workers hand over batches in shared memory (/dev/shm): make it larger, or use fewer workers"
_SPAWNED = (
    'Workers of this start method import the script again: it must train under `if __name__ == "__main__":`. If the '
    "worker printed an error, it is above"
)
_CODE = "What it printed is above; num_workers=0 shows an error where it happens"


class WorkerLostError(DataError):
    """A worker process of a loader was killed, or ended by itself."""


class _Losses:
    """Of this process: whether they wait for the next draw, whether one is under way, and what was lost."""

    waits = 0
    drawing = False
    lost: RuntimeError | None = None


class WatchedIterator:
    """A loader's iterator, which says clearly that a worker was lost."""

    def __init__(self, iterator: Iterator[Any], *, spawns: bool = False) -> None:
        self._iterator, self._spawns = iterator, spawns
        self._in_main = threading.current_thread() is threading.main_thread()  # where handlers run
        if self._in_main:
            _take_over_handler()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            _Losses.drawing = self._in_main
            if self._in_main and _Losses.lost is not None:
                raise _Losses.lost
            return next(self._iterator)
        except RuntimeError as error:
            if not str(error).startswith(_TORCHS):
                raise
            _Losses.lost = None
            raise WorkerLostError(_message(str(error), self._spawns)) from error
        finally:
            _Losses.drawing = False


@contextmanager
def losses_at_draws() -> Iterator[None]:
    """Let the loss of a worker wait for the next draw, within this context."""
    _Losses.waits += 1
    try:
        yield
    finally:
        _Losses.waits -= 1
        _Losses.lost = None


def _take_over_handler() -> None:
    """Call torch's handler of SIGCHLD, which it installs with its first workers, from one of ours."""
    if not hasattr(signal, "SIGCHLD"):  # Windows
        return
    usual = signal.getsignal(signal.SIGCHLD)
    if callable(usual) and not isinstance(usual, _Handler):
        signal.signal(signal.SIGCHLD, _Handler(usual))


class _Handler:
    def __init__(self, usual: Callable[..., Any]) -> None:
        self._usual = usual

    def __call__(self, *arguments: Any) -> None:
        try:
            self._usual(*arguments)
        except RuntimeError as error:
            if _Losses.drawing or not _Losses.waits:
                raise
            _Losses.lost = error  # torch tells of each loss once


def _message(text: str, spawns: bool) -> str:
    advice = _CODE if "exit code" in text else _SHARED_MEMORY if "Bus error" in text else _MEMORY
    if spawns and "killed by signal" not in text:
        advice = f"{_SPAWNED}. {advice}"
    return f"a worker process of the loader ended: {text.split('. ')[0].rstrip('. ')}. {advice}"


def refuse_import_by_worker() -> None:
    """Refuse to train in a script that a worker process imports to find its functions.

    Raises:
        DataError: naming the line that the script needs.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__mp_main__":
            raise DataError(
                "a worker process of a loader imports this script, and the script trains when it is imported. Put what "
                'trains under `if __name__ == "__main__":`, or use workers that are forked'
            )
        frame = frame.f_back
