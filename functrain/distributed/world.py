"""Ranks: who is there, and what they must agree on.

Processes are started by `torchrun` and joined by torch.distributed; nothing here is home-made.
"""

import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from functrain.foundation.errors import FunctrainError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among its peers.

    Attributes:
        rank: 0 to size - 1; rank 0 writes logs and checkpoints.
        size: number of processes that train together.
    """

    rank: int = 0
    size: int = 1


def current_world() -> World:
    """The world as torch.distributed has it; one process alone if it was not initialised.

    Raises:
        FunctrainError: if torchrun started several processes, but they have not been joined.

    Example:
        >>> current_world()
        World(rank=0, size=1)
    """
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise FunctrainError(
            f"{os.environ['WORLD_SIZE']} processes were started, but each would train alone: call "
            "functrain.distributed.start() before init_state, or torch.distributed.init_process_group"
        )
    return World()


def start(device: torch.device | str | None = None) -> World:
    """Join the processes that torchrun started: by nccl, a GPU for each, or by gloo on CPUs.

    Args:
        device: where the states will be; default: GPUs, if there are any. "cuda" is each process's own.

    Example, as a script run by `torchrun --nproc-per-node 2 train.py`:
        >>> import functrain as ft
        >>> world = ft.distributed.start()  # doctest: +SKIP
    """
    if torch.cuda.is_available() if device is None else str(device).startswith("cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl")
    else:
        dist.init_process_group("gloo")
    return current_world()


def any_rank(flag: bool, world: World) -> bool:
    """Whether the flag is up on any rank; every rank must ask, and gets the same answer."""
    if world.size == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    seen = torch.tensor(int(flag), device=device)
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    return bool(seen)


def all_ranks(value: T, world: World) -> list[T]:
    """The value of each rank, in their order; every rank must ask.

    Args:
        value: anything that can be pickled, with tensors on the CPU.
        world: the ranks.

    Example:
        >>> all_ranks("a", World())
        ['a']
    """
    if world.size == 1:
        return [value]
    found: list[Any] = [None] * world.size
    dist.all_gather_object(found, value)
    return found


def barrier() -> None:
    """Wait until every rank is here."""
    if current_world().size > 1:
        dist.barrier()
