"""Ranks: who is there, and what they must agree on.

Processes are started by `torchrun`, or by functrain's launcher for one machine, and joined by torch.distributed.
"""

import os
import weakref
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from functrain.foundation.errors import FunctrainError
from functrain.foundation.torch_internals import group_timeout

T = TypeVar("T")
_aside: tuple[Any, Any] | None = None  # the group of all ranks, and the one beside it
STORE = "FUNCTRAIN_STORE"  # the variable with the file through which processes of one machine find each other


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


def start(device: torch.device | str | None = None, *, backend: str = "auto", timeout_s: float | None = None) -> World:
    """Join the processes that torchrun, or `functrain train --nproc`, started.

    Args:
        device: where the states will be; default: GPUs, if there are any. "cuda" is each process's own.
        backend: "nccl", "gloo", or "auto" for nccl between GPUs and gloo between CPUs.
        timeout_s: seconds that a collective waits for the other ranks; default: torch's own limit.

    Raises:
        FunctrainError: this machine has fewer GPUs than processes, or nccl is asked for without one.

    Example, as a script run by `torchrun --nproc-per-node 2 train.py`:
        >>> import functrain as ft
        >>> world = ft.distributed.start()  # doctest: +SKIP
    """
    on_gpus = torch.cuda.is_available() if device is None else str(device).startswith("cuda")
    chosen = ("nccl" if on_gpus else "gloo") if backend == "auto" else backend
    if chosen == "nccl" and not on_gpus:
        raise FunctrainError(
            f"the backend nccl sends from GPU to GPU, and the states will be on {device or 'cpu'}: choose gloo or "
            "auto, or a device cuda"
        )
    if on_gpus:
        torch.cuda.set_device(_own_gpu())
    options: dict[str, Any] = {} if timeout_s is None else {"timeout": timedelta(seconds=timeout_s)}
    dist.init_process_group(chosen, **options, **_meeting(timeout_s))
    return current_world()


def _own_gpu() -> int:
    """The number of this process's GPU."""
    there, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > there:
        raise FunctrainError(
            f"{here} processes were started on this machine, which has {there} GPU{'s' if there != 1 else ''}: "
            "start at most one for each GPU"
        )
    return int(os.environ.get("LOCAL_RANK", "0"))


def _meeting(timeout_s: float | None) -> dict[str, Any]:
    """Where the processes find each other: a file, or, as torch does it, a port of the first one's machine.

    The launcher for one machine names a file, since torch's store listens on all interfaces.
    """
    path = os.environ.get(STORE)
    if path is None:
        return {}
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.FileStore(path, size)
    if timeout_s is not None:
        store.set_timeout(timedelta(seconds=timeout_s))
    return {"store": store, "rank": rank, "world_size": size}


def aside() -> Any:
    """The group in which the ranks agree from Python, apart from the collectives of compiled programs.

    gloo's thread lets go of a tensor with its group's lock held, and needs Python's lock for one that Python knows. A
    compiled program holds Python's lock when it asks for the group's. In one group the two waited for each other for
    ever (torch 2.13).
    """
    global _aside
    world = dist.group.WORLD
    if dist.get_backend() != "gloo":
        return world
    if _aside is None or _aside[0]() is not world:
        _aside = weakref.ref(world), dist.new_group(backend="gloo", timeout=group_timeout())
    return _aside[1]


def any_rank(flag: bool, world: World) -> bool:
    """Whether the flag is up on any rank; every rank must ask, and gets the same answer."""
    if world.size == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    seen = torch.tensor(int(flag), device=device)
    dist.all_reduce(seen, dist.ReduceOp.MAX, group=aside())
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
    dist.all_gather_object(found, value, group=aside())
    return found


def barrier() -> None:
    """Wait until every rank is here."""
    if current_world().size > 1:
        dist.barrier(group=aside())
