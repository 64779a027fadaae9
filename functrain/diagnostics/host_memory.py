"""How much memory of the host there is to take, and taking no more.

Linux promises memory that it has not got, and kills a process that uses it. Within a limit of its own a process gets an
error from the allocator instead, which can be caught.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPARED = 0.1  # of what is available, for other processes and for what an allocator takes beside what it gives

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int | None:
    """Bytes that could be taken without swapping, under the container's limit if there is one; None if unknown.

    Example:
        >>> available = available_memory()
        >>> available is None or available > 0
        True
    """
    try:
        free = _field("/proc/meminfo", "MemAvailable")
    except (OSError, StopIteration):
        return None
    for limit, used in _CGROUPS:
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return free


@contextmanager
def within_available_memory() -> Iterator[bool]:
    """Let allocations beyond nine tenths of what is available fail; whether that can be done here.

    Example:
        >>> with within_available_memory() as limited:
        ...     limited in (True, False)
        True
    """
    available = available_memory()
    if available is None:
        yield False
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _field("/proc/self/status", "VmSize") + int((1 - SPARED) * available)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *limits]), hard))
    try:
        yield True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _field(path: str, name: str) -> int:
    """Bytes, from a line such as "VmSize:  123 kB"."""
    with open(path) as lines:
        return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
