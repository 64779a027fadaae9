"""Are there file descriptors enough for orbax? It survives without, but leaves a dozen tracebacks on the terminal."""

import errno
import os

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Measured with 3 and 12 items, orbax 0.12.8: a read began to fail below 12, a save below 30 and 45.
FOR_READING = 12
_FOR_SAVING, _FOR_EACH_ITEM = 28, 2


def for_saving(items: int) -> int:
    """The file descriptors that a save of some items needs at a time."""
    return _FOR_SAVING + _FOR_EACH_ITEM * items


def require_descriptors(count: int) -> None:
    """See that so many file descriptors are free.

    Raises:
        OSError: there are fewer.
    """
    if resource is None or not os.path.isdir("/dev/fd"):
        return
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return
    free = allowed + 1 - sum(int(name) < allowed for name in os.listdir("/dev/fd"))  # one is the listing's own
    if free < count:
        raise OSError(
            errno.EMFILE,
            f"{os.strerror(errno.EMFILE)}: {count} more are needed, and of {allowed} ('ulimit -n') {max(free, 0)} are "
            "free",
        )
