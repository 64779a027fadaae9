"""Sums in a fixed order on the CPU."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from functrain.foundation.torch_internals import inductor_settings


@contextmanager
def repeatable_sums(device: torch.device) -> Iterator[None]:
    """Within, equal operations on a CPU give equal bits: the sums behind `x[index]`'s gradient, too.

    That is `index_put(accumulate=True)`: several threads add atomically, in an order that differs from call to call,
    unless torch is asked for deterministic algorithms. This asks for them, as a caller may have done, and stricter,
    already. Operations for other devices are as they were. Several threads may be within at a time.

    Args:
        device: where is computed.

    Example:
        >>> with repeatable_sums(torch.device("cpu")):
        ...     torch.are_deterministic_algorithms_enabled()
        True
        >>> torch.are_deterministic_algorithms_enabled()
        False
    """
    if device.type != "cpu" or not _ask():
        yield
        return
    try:
        yield
    finally:
        _ask_no_more()


class _Asked:
    """What is asked of torch, for the process: the first context in any thread asks, the last one puts it back."""

    lock = threading.Lock()
    contexts = 0
    before: tuple[bool, bool] = (False, False)  # fill_uninitialized_memory, inductor's setting


def _ask() -> bool:
    """Ask for deterministic algorithms; False if the caller has."""
    with _Asked.lock:
        if not _Asked.contexts:
            if torch.are_deterministic_algorithms_enabled():
                return False
            settings: Any = torch.utils.deterministic
            inductor: Any = inductor_settings()
            _Asked.before = settings.fill_uninitialized_memory, inductor is not None and inductor.deterministic
            torch.set_deterministic_debug_mode("warn")
            settings.fill_uninitialized_memory = False  # writing to memory that will be written to anyway takes time
        _Asked.contexts += 1
        return True


def _ask_no_more() -> None:
    with _Asked.lock:
        _Asked.contexts -= 1
        if _Asked.contexts:
            return
        settings: Any = torch.utils.deterministic
        settings.fill_uninitialized_memory, inductors = _Asked.before
        torch.set_deterministic_debug_mode("default")
        # Who saves torch's setting within and puts it back (torch.cond does) sets inductor's too.
        inductor: Any = inductor_settings()
        if inductor is not None and inductor.deterministic != inductors:
            inductor.deterministic = inductors
