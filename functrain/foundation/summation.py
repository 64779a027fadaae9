"""Sums in a fixed order on the CPU. Imports torch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def repeatable_sums(device: torch.device) -> Iterator[None]:
    """Within, equal operations on a CPU give equal bits: the sums behind `x[index]`'s gradient, too.

    That is `index_put(accumulate=True)`: several threads add atomically, in an order that differs from call to call,
    unless torch is asked for deterministic algorithms. This asks for them, as a caller may have done, and stricter,
    already. Operations for other devices are as they were.

    Args:
        device: where is computed.

    Example:
        >>> with repeatable_sums(torch.device("cpu")):
        ...     torch.are_deterministic_algorithms_enabled()
        True
        >>> torch.are_deterministic_algorithms_enabled()
        False
    """
    if device.type != "cpu" or torch.are_deterministic_algorithms_enabled():
        yield
        return
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    settings.fill_uninitialized_memory = False  # writing to memory that will be written to anyway takes time
    inductor: Any = sys.modules.get("torch._inductor.config")
    inductors = inductor is not None and inductor.deterministic
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = fill
        torch.set_deterministic_debug_mode("default")
        # Who saves torch's setting within and puts it back (torch.cond does) sets inductor's too.
        inductor = sys.modules.get("torch._inductor.config")
        if inductor is not None and inductor.deterministic != inductors:
            inductor.deterministic = inductors
