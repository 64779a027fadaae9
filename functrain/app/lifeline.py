"""Processes that end when the process that started them ends, however that happens."""

import ctypes
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

GRACE = 120.0  # seconds to save what there is
_PR_SET_PDEATHSIG = 1  # of prctl(2)


def python(module: str, *arguments: str) -> list[str]:
    """The command that calls `main` of a module in a fresh interpreter.

    Nothing in the current directory can take the place of a library, and functrain need not be installed.
    """
    home = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.append({home!r}); from {module} import main; sys.exit(main())"
    return [sys.executable, "-P", "-c", code, *arguments]


def end_with_parent() -> None:
    """End this process when its standard input ends: a pipe whose other end the parent holds, and never writes to.

    The system closes the pipe when the parent ends, by SIGKILL too. Then SIGTERM lets a run save its state, and SIGKILL
    follows if it does not end. A process that was told to end before is ended at once, as by a second signal.
    """
    threading.Thread(target=_wait, daemon=True, name="lifeline").start()


def _wait() -> None:
    try:
        while os.read(0, 1):
            pass
    except OSError:  # there is no standard input
        pass
    _signal(signal.SIGTERM)
    time.sleep(GRACE)
    _signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def _signal(number: signal.Signals) -> None:
    """Send a signal to the main thread, so that it interrupts what this waits for."""
    thread = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and thread is not None:
        signal.pthread_kill(thread, number)
    else:
        os.kill(os.getpid(), number)


def end_at_once_with_parent() -> None:
    """End this process with SIGKILL when its parent ends; where the system cannot do that, as `end_with_parent`."""
    if sys.platform != "linux":
        end_with_parent()
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before: then its end of the pipe is closed, and nothing else was ever written to it.
    if os.getppid() != parent or _is_at_end(0):
        os.kill(os.getpid(), signal.SIGKILL)


def _is_at_end(descriptor: int) -> bool:
    """Whether a pipe has no writer any more."""
    poll = select.poll()
    poll.register(descriptor, select.POLLHUP)
    return bool(poll.poll(0))
