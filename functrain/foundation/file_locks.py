"""The system's locks on files and folders (`flock`), which end with the process that holds them."""

import errno
from collections.abc import Callable

try:
    import fcntl
except ImportError:  # Windows
    _system_lock: Callable[[int, int], None] | None = None
else:
    _system_lock = fcntl.flock

# What flock answers where the file system has no locks.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


def try_lock(descriptor: int) -> bool | None:
    """Take the lock of an open file or folder, without waiting.

    Returns:
        True if it was free and is now held, False if another process holds it, None if the system or the file system
        has no locks.

    Raises:
        OSError: the lock cannot be taken for another reason.
    """
    if _system_lock is None:
        return None
    try:
        _system_lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def unlock(descriptor: int) -> None:
    """Give the lock of an open file back, also where a child process has the file, too."""
    if _system_lock is not None:
        _system_lock(descriptor, fcntl.LOCK_UN)
