"""Room for deeply nested modules on Python's call stack."""

import contextlib
import sys
import threading
from collections.abc import Iterator

DEPTH = 4_000
"""Python's limit within `deep_calls`. Copying or tracing a module takes up to eight calls a level. An eager forward
pass takes three, so that 300 levels run within Python's usual limit of 1,000."""

_lock = threading.Lock()
_users = 0
_usual = 0


@contextlib.contextmanager
def deep_calls() -> Iterator[None]:
    """Raise Python's recursion limit within the context. The limit is the process's, so the last user puts it back.

    Example:
        >>> def nested(depth):
        ...     return depth and nested(depth - 1)
        >>> with deep_calls():
        ...     nested(2_000)
        0
    """
    global _users, _usual
    with _lock:
        if not _users:
            _usual = sys.getrecursionlimit()
            sys.setrecursionlimit(max(_usual, DEPTH))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                sys.setrecursionlimit(_usual)
