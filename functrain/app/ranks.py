"""Several processes of one command, as torchrun starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from functrain.distributed import World, current_world, start


@contextmanager
def joined(device: str | None = None) -> Iterator[World]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Args:
        device: where they will train, as `training.device` says.

    Example:
        >>> with joined() as world:
        ...     world
        World(rank=0, size=1)
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield current_world()
        return
    world = start(device)
    try:
        yield world
    finally:
        dist.destroy_process_group()
