"""What the processes of a run tell each other beside training: in a group of their own, from any thread."""

import pickle
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from functrain.distributed.world import World
from functrain.foundation.errors import CheckpointError
from functrain.foundation.torch_internals import group_timeout


@dataclass(frozen=True, eq=False)
class ProcessPeers:
    """The processes of a run, as one of them sees them: the `Peers` of its checkpoints.

    Attributes:
        rank, ranks: the number of this process, and how many there are.
        group: theirs; no other thread may use it at the same time.
    """

    rank: int
    ranks: int
    group: Any

    @classmethod
    def of(cls, world: World) -> "ProcessPeers":
        """Of all processes, which must all call it. They wait for each other as long as those that train do."""
        timeout = group_timeout()
        return cls(world.rank, world.size, dist.new_group(backend="gloo", timeout=timeout))

    def send(self, value: Any, rank: int) -> None:
        """Send to a process that receives."""
        data = bytearray(pickle.dumps(value))
        try:
            dist.send(torch.tensor([len(data)]), rank, group=self.group)
            dist.send(torch.frombuffer(data, dtype=torch.uint8), rank, group=self.group)
        except RuntimeError as error:
            raise _lost(rank, error) from error

    def receive(self, rank: int) -> Any:
        """What a process sends. It is one of this run's, which runs the same code."""
        size = torch.empty(1, dtype=torch.int64)
        try:
            dist.recv(size, rank, group=self.group)
            data = torch.empty(int(size), dtype=torch.uint8)
            dist.recv(data, rank, group=self.group)
        except RuntimeError as error:
            raise _lost(rank, error) from error
        return pickle.loads(data.numpy().tobytes())


def _lost(rank: int, error: RuntimeError) -> CheckpointError:
    return CheckpointError(f"process {rank} has ended, or does not answer ({str(error).splitlines()[0][:200]})")
