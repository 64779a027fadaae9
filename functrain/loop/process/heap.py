"""Memory that a step frees stays with the process for the next step.

glibc gives the end of its heap back to the system when enough of it is free, which at the end of a step are all
gradients; the next step asks for them again, and the system maps and clears each page anew. For a network of large
matrices that was a quarter of a step (figures in docs/decisions.md).
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator

import torch

# Of <malloc.h>. A threshold that is set no longer adapts itself: at the end both stay where glibc's own adapting ends.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20  # bytes; glibc's bound for M_MMAP_THRESHOLD, up to which a block is taken from the heap
USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@contextlib.contextmanager
def kept_heap(device: torch.device) -> Iterator[None]:
    """Within, what is freed on the CPU is not given back to the system; at the end all that is free is.

    Does nothing for another device, with another C library, or where the user's environment says how glibc shall do.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if any(name in os.environ for name in USERS_OWN):
        return None
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
