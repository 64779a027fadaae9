"""Work that no signal handler interrupts: what a handler raises there could be taken for something else.

Python runs signal handlers in the main thread. A KeyboardInterrupt in orbax's event loop becomes another
error, which looks like a damaged checkpoint. So reading is done in a thread of its own, and handlers raise in
the main thread's waiting for it.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from functrain.checkpoint.background import before_pools_close

_Result = TypeVar("_Result")


def uninterrupted(work: Callable[[], _Result]) -> _Result:
    """What `work` returns or raises. An exception from a signal handler is raised at once and as it is.

    The work that nobody waits for any more then ends by itself: at its next call of `stop_if_abandoned`, or when
    it is done. The interpreter waits for it.

    Example:
        >>> uninterrupted(lambda: 1 + 1)
        2
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    thread = _Work(work)
    before_pools_close(_end_all)
    _running.add(thread)
    try:
        thread.start()
        thread.done.wait()
    except BaseException:
        thread.abandoned = True
        raise
    return thread.outcome()


def stop_if_abandoned() -> None:
    """End the work at hand if nobody waits for it any more. For places where little is lost: between two files."""
    thread = threading.current_thread()
    if isinstance(thread, _Work) and thread.abandoned:
        raise _Abandoned


class _Abandoned(BaseException):
    """Ends work whose result nobody wants."""


class _Work(threading.Thread, Generic[_Result]):
    def __init__(self, work: Callable[[], _Result]) -> None:
        super().__init__(name="functrain-reading", daemon=False)
        self._work: Callable[[], _Result] | None = work
        self._results: list[_Result] = []
        self._error: BaseException | None = None
        self.abandoned = False
        self.done = threading.Event()  # not `join`: interrupted, it takes the thread for ended (Python 3.11)

    def run(self) -> None:
        """Called by the thread itself."""
        work, self._work = self._work, None
        assert work is not None
        try:
            self._results.append(work())
        except BaseException as error:
            self._error = error
        finally:
            _running.discard(self)
            self.done.set()

    def outcome(self) -> _Result:
        """Hand over what there is, so that the thread keeps neither the result nor the error."""
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return self._results.pop()


_running: set[_Work] = set()


def _end_all() -> None:
    for thread in list(_running):
        thread.abandoned = True
    for thread in list(_running):
        thread.done.wait()
