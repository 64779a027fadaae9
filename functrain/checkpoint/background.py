"""One piece of work in a thread that the interpreter waits for."""

import concurrent.futures.thread  # noqa: F401 - for the order of exit hooks, see before_pools_close
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress

from functrain.checkpoint.errors import CheckpointWarning, describe
from functrain.foundation.errors import CheckpointError


class BackgroundSave:
    """A save that runs in its own thread, from construction on.

    A program may end without waiting for its last save. A thread that is not a daemon is not
    enough then: while such threads still run, the interpreter has already closed the thread pools
    that orbax needs. So the save is finished by a hook that runs before those pools are closed.
    """

    def __init__(self, work: Callable[[], None], description: str) -> None:
        self._work: Callable[[], None] | None = work
        self._description = description
        self._error: CheckpointError | None = None
        self._done = threading.Event()  # not the thread's `join`: interrupted, it takes it for ended (Python 3.11)
        self._thread = threading.Thread(target=self._run, name="functrain-checkpoint", daemon=False)
        _unfinished.add(self)
        before_pools_close(_finish_all)
        try:
            self._thread.start()
        except BaseException:
            _unfinished.discard(self)
            raise

    def _run(self) -> None:
        work, self._work = self._work, None  # the tensors are let go when the work is done
        assert work is not None
        try:
            work()
        except CheckpointError as error:
            self._error = error
        except BaseException as error:
            self._error = CheckpointError(f"could not save {self._description}: {describe(error)}")
            self._error.__cause__ = error
        else:
            _unfinished.discard(self)
        finally:
            self._done.set()

    def join(self) -> None:
        """Wait until the work is done; never raises its error."""
        self._done.wait()

    def take_error(self) -> CheckpointError | None:
        """The error of finished work, the first time it is asked for."""
        error, self._error = self._error, None
        _unfinished.discard(self)
        return error


# Saves that still run, and failed ones whose error nobody has seen.
_unfinished: set[BackgroundSave] = set()
_hooks: set[Callable[[], None]] = set()


def before_pools_close(hook: Callable[[], None]) -> None:
    """Call `hook` once when the interpreter ends, before it closes the thread pools that orbax needs.

    The hooks run last in, first out, so importing concurrent.futures.thread above puts its closing of the pools
    after ours. `atexit` runs too late. The name is private to Python but unchanged since 3.9; without it only a
    thread itself keeps the interpreter waiting.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is not None and hook not in _hooks:
        _hooks.add(hook)
        with suppress(RuntimeError):  # it is ending already
            register(hook)


def _finish_all() -> None:
    for save in list(_unfinished):
        save.join()
        error = save.take_error()
        if error is not None:
            warnings.warn(str(error), CheckpointWarning, stacklevel=2)
