"""Several processes of one command, as torchrun or `--nproc` starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from functrain.app.config.schema import Config
from functrain.app.launching.reports import say_joined
from functrain.distributed import World, current_world, start


@contextmanager
def joined(config: Config) -> Iterator[World]:
    """Join the processes that torchrun or `--nproc` started, if one did, and leave them at the end.

    Args:
        config: says where they train, and how they send.

    Raises:
        FunctrainError: they cannot train there.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield current_world()
        return
    chosen = config.distributed
    world = start(config.training.device, backend=chosen.backend, timeout_s=chosen.timeout_s)
    say_joined()
    try:
        yield world
    finally:
        dist.destroy_process_group()
