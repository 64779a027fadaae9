"""The loss of a loader's worker process, raised where the next batch is drawn: never within a step or a save.

torch raises in its handler of SIGCHLD, wherever the process is at that moment. While a run trains, that error waits.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from functrain.foundation.errors import DataError

_TORCHS = "DataLoader worker (pid"  # the beginning of each message of torch's about a lost worker
_MEMORY = (
    "When memory runs out, the system kills processes without a word (see dmesg). Use fewer workers (num_workers), a "
    "smaller prefetch_factor, or data that are not copied into each worker"
)
_SHARED_MEMORY = "Workers hand over batches in shared memory (/dev/shm): make it larger, or use fewer workers"
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

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
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
            raise WorkerLostError(_message(str(error))) from error
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


def _message(text: str) -> str:
    advice = _CODE if "exit code" in text else _SHARED_MEMORY if "Bus error" in text else _MEMORY
    return f"a worker process of the loader ended: {text.split('. ')[0].rstrip('. ')}. {advice}"
