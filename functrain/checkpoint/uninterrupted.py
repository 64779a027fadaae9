"""Work that no signal handler interrupts: what a handler raises there could be taken for something else.

Python runs signal handlers in the main thread. A KeyboardInterrupt in orbax's event loop becomes another
error, which looks like a damaged checkpoint. So reading is done in a thread of its own, and handlers raise in
the main thread's waiting for it.
"""

import _thread
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
    task = _Task(work)
    before_pools_close(_end_all)
    try:
        # Not `threading.Thread`: an exception from a handler within its `start`, or within an `Event.wait`, leaves
        # Python's locks behind in disorder, and another error takes its place (Python 3.11).
        _thread.start_new_thread(task.run, ())
        task.done.acquire()
    except BaseException:
        task.abandoned = True
        raise
    return task.outcome()


def stop_if_abandoned() -> None:
    """End the work at hand if nobody waits for it any more. For places where little is lost: between two files."""
    task: _Task[object] | None = getattr(_current, "task", None)
    if task is not None and task.abandoned:
        raise _Abandoned


class _Abandoned(BaseException):
    """Ends work whose result nobody wants."""


class _Task(Generic[_Result]):
    """Work in a thread of its own. `done` is a lock that is held until the work has ended."""

    def __init__(self, work: Callable[[], _Result]) -> None:
        self._work: Callable[[], _Result] | None = work
        self._results: list[_Result] = []
        self._error: BaseException | None = None
        self.abandoned = False
        self.done = _thread.allocate_lock()
        self.done.acquire()

    def run(self) -> None:
        """Called by the thread itself."""
        work, self._work = self._work, None
        assert work is not None
        _current.task = self
        _running.add(self)
        try:
            stop_if_abandoned()
            self._results.append(work())
        except BaseException as error:
            self._error = error
        finally:
            _running.discard(self)
            self.done.release()

    def outcome(self) -> _Result:
        """Hand over what there is, so that the thread keeps neither the result nor the error."""
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        return self._results.pop()


_current = threading.local()  # .task, in a task's own thread
_running: set[_Task] = set()


def _end_all() -> None:
    tasks = list(_running)
    for task in tasks:
        task.abandoned = True
    for task in tasks:
        task.done.acquire()
