"""The number of threads that torch computes with."""

import os

import torch

from functrain.foundation.numbers import is_integer

FEWEST_ALLOWED, PER_PROCESSOR = 64, 4  # of threads: with very many the process does not fail but crash


def use_threads(count: int, name: str = "threads") -> None:
    """Compute with so many threads from now on.

    Args:
        count: of threads.
        name: of the setting, for messages.

    Raises:
        ValueError: it is no number from 1 to 64, or to four times the number of processors where that is more.
    """
    processors = os.cpu_count() or 1
    most = max(FEWEST_ALLOWED, PER_PROCESSOR * processors)
    if not is_integer(count, 1) or count > most:
        raise ValueError(
            f"{name} must be a whole number from 1 to {most} on this machine, which has {processors} processors; "
            f"got {count!r}"
        )
    torch.set_num_threads(count)
