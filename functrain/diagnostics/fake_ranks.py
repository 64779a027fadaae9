"""One process in the place of many: collectives that send nothing, recorded, on tensors without values."""

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from functrain.foundation.errors import FunctrainError
from functrain.foundation.torch_internals import TorchDispatchMode, fake_store, ranks_of, reads_a_value
from functrain.foundation.trees import tensors

# What an operator of torch.distributed sends, by the part of its name: the kind, which of its tensors counts, and how
# many bytes of it a process of W sends in a ring, as multiples of (W - 1) and of (W - 1) / W.
_KINDS = (
    ("allgather", "all-gather", -1, 1, 0),
    ("all_gather", "all-gather", 0, 1, 0),
    ("alltoall", "all-to-all", -1, 0, 1),
    ("all_to_all", "all-to-all", 0, 0, 1),
    ("reduce_scatter", "reduce-scatter", -1, 0, 1),
    ("allreduce", "all-reduce", 0, 0, 2),
    ("all_reduce", "all-reduce", 0, 0, 2),
    ("broadcast", "broadcast", 0, 0, 1),
)
_ASKS_FOR_INFINITY = (
    torch.ops.aten.isinf.default,
    torch.ops.aten.eq.Scalar,
)  # the latter where the former is taken apart


class Message(NamedTuple):
    """A collective.

    Attributes:
        kind: "all-gather", "all-to-all", "reduce-scatter", "all-reduce" or "broadcast".
        nbytes: that each process sends in a ring.
        ranks: how many processes are in the ring.
    """

    kind: str
    nbytes: int
    ranks: int


@contextmanager
def fake_world(ranks: int) -> Iterator[None]:
    """Be rank 0 of so many within torch's fake process group, whose collectives return at once.

    Raises:
        FunctrainError: this process is one of several already.

    Example:
        >>> from functrain.distributed import current_world
        >>> with fake_world(1024):
        ...     current_world()
        World(rank=0, size=1024)
    """
    if dist.is_initialized():
        raise FunctrainError("a plan is made in one process: leave torchrun out")
    dist.init_process_group("fake", store=fake_store(), rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Messages(TorchDispatchMode):
    """Records the collectives of rank 0, and answers for values that tensors without values do not have.

    A step asks the host whether something is infinite (no), whether an update is applied (yes), and how many there are
    of something on a process (one).

    Attributes:
        sent: the collectives, in order.
    """

    def __init__(self, ranks: int) -> None:
        super().__init__()
        self.sent: list[Message] = []
        self._ranks = ranks
        self._infinite: dict[int, weakref.ref[Any]] = {}  # a set of tensors would compare their values

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """As of `LiveMemory`."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and record what it sends."""
        if reads_a_value(func):
            dtype = args[0].dtype
            return id(args[0]) not in self._infinite if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
        if func.namespace in ("c10d", "_c10d_functional"):
            self._record(func.__name__, list(tensors((args, kwargs))), ranks_of(args) or self._ranks)
        result = func(*args, **(kwargs or {}))
        if func in _ASKS_FOR_INFINITY and math.inf in (*args[1:], math.inf if len(args) == 1 else 0):
            self._note(result)
        return result

    def _note(self, tensor: Tensor) -> None:
        """Remember that a tensor says what is infinite."""
        number = id(tensor)
        self._infinite[number] = weakref.ref(tensor, lambda _: self._infinite.pop(number, None))

    def _record(self, name: str, given: list[Tensor], ranks: int) -> None:
        for part, kind, place, whole, shares in _KINDS:
            if part in name and given:
                nbytes = given[place].nbytes * (ranks - 1) * (whole * ranks + shares) // ranks
                self.sent.append(Message(kind, nbytes, ranks))
                return
