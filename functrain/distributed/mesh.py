"""How the processes of a run are arranged: which share out the data, which share a state, which share its layers.

    number of a process = (replica * shards + shard) * tensor + slice

Data parallelism is over replicas and shards: each pair has its part of the data. Processes with one replica keep the
shards of one state; those with one pair keep slices of the layers' tensors, and compute with the same examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from functrain.distributed.world import World

DIMENSIONS = ("dp", "dp_replicate", "dp_shard", "tp")


@dataclass(frozen=True)
class Group:
    """Processes that send to each other.

    Attributes:
        rank, size: the number of this process among them, and how many there are.
        first: the number of the first of them among all processes.
        handle: torch's process group; None: all processes.
    """

    rank: int = 0
    size: int = 1
    first: int = 0
    handle: Any = None


@dataclass(frozen=True)
class Sizes:
    """The sizes of a mesh.

    Attributes:
        dp_replicate: groups that have a whole state each.
        dp_shard: processes that share such a state.
        tp: processes that share the layers of a network.

    Example:
        >>> Sizes(2, 4, 1).dp
        8
    """

    dp_replicate: int
    dp_shard: int
    tp: int

    @property
    def dp(self) -> int:
        """Processes among which the data are shared out."""
        return self.dp_replicate * self.dp_shard


@dataclass(frozen=True)
class Mesh:
    """The groups of one process.

    Attributes:
        data: the processes with the other parts of the data, and the same slices of layers.
        shards: those of them that have the other shards of the same state.
        replicas: those of them that have the same shard.
        tensor: the processes with the other slices of the layers, and the same data.
    """

    data: Group
    shards: Group
    replicas: Group = Group()
    tensor: Group = Group()


def sizes_of(mesh: Any, world: World) -> Sizes:
    """The sizes of a mesh as it is given; what is left out is what the number of processes leaves.

    Args:
        mesh: the number of processes, a mapping of some of `DIMENSIONS`, a torch DeviceMesh with such names, or None.
        world: all processes.

    Raises:
        ValueError: it has other dimensions, or does not fit the number of processes.

    Example:
        >>> sizes_of({"dp_shard": 2}, World(0, 8))
        Sizes(dp_replicate=4, dp_shard=2, tp=1)
        >>> sizes_of({"tp": 2}, World(0, 8))
        Sizes(dp_replicate=1, dp_shard=4, tp=2)
    """
    given = _named(mesh)
    if others := [name for name in given if name not in DIMENSIONS]:
        raise ValueError(f"a mesh has the dimensions {', '.join(DIMENSIONS)}; got {', '.join(map(str, others))}")
    if bad := [f"{name}={size!r}" for name, size in given.items() if not isinstance(size, int) or size < 1]:
        raise ValueError(f"the sizes of a mesh are whole numbers of at least 1; got {', '.join(bad)}")
    tp = given.get("tp", 1)
    dp = given.get("dp", max(world.size // tp, 1))
    replicate, shard = given.get("dp_replicate"), given.get("dp_shard")
    if replicate is None:
        shard = dp if shard is None else shard
        replicate = max(dp // shard, 1)
    elif shard is None:
        shard = max(dp // replicate, 1)
    found = Sizes(replicate, shard, tp)
    if given.get("dp", found.dp) != found.dp:
        raise ValueError(f"dp is dp_replicate x dp_shard; the mesh has dp={given['dp']} and {replicate} x {shard}")
    if found.dp * tp != world.size:
        said = "" if found.dp in (1, given.get("dp")) and tp == 1 else f" (dp_replicate {replicate} x dp_shard {shard}"
        said += f" x tp {tp})" if said else ""
        raise ValueError(f"the mesh has {found.dp * tp} processes{said}, and {world.size} were started")
    return found


def _named(mesh: Any) -> Mapping[str, int]:
    if mesh is None:
        return {}
    if isinstance(mesh, int):
        return {"dp": mesh}
    if isinstance(mesh, Mapping):
        return {name: size for name, size in mesh.items() if size is not None}
    names = mesh.mesh_dim_names or (("dp",) if mesh.mesh.ndim == 1 else None)
    order = [name for name in DIMENSIONS if name in (names or ())]
    if names is None or list(names) != order or mesh.mesh.flatten().tolist() != list(range(mesh.mesh.numel())):
        raise ValueError(
            f"a DeviceMesh needs the names {', '.join(DIMENSIONS)}, in this order, and the processes in theirs; got "
            f"{names} and {mesh.mesh.tolist()}"
        )
    return dict(zip(names, mesh.mesh.shape, strict=True))


def mesh_of(sizes: Sizes, world: World) -> Mesh:
    """The groups of this process. All processes must call it, as torch makes groups of processes together.

    Example:
        >>> mesh_of(Sizes(1, 1, 1), World()).data
        Group(rank=0, size=1, first=0, handle=None)
    """
    shards, tensor = sizes.dp_shard, sizes.tp
    position, slice_ = divmod(world.rank, tensor)
    replica, shard = divmod(position, shards)
    return Mesh(
        data=_group([each * tensor + slice_ for each in range(sizes.dp)], world),
        shards=_group([(replica * shards + each) * tensor + slice_ for each in range(shards)], world),
        replicas=_group([(each * shards + shard) * tensor + slice_ for each in range(sizes.dp_replicate)], world),
        tensor=_group([position * tensor + each for each in range(tensor)], world),
    )


_MADE: dict[tuple[int, ...], tuple[Any, Any]] = {}  # numbers -> all processes, as torch has them, and the group


def _group(numbers: list[int], world: World) -> Group:
    rank = numbers.index(world.rank)
    if len(numbers) in (1, world.size):
        return Group(rank, len(numbers), numbers[0])
    key, everyone = tuple(numbers), dist.group.WORLD
    found = _MADE.get(key)
    if found is None or found[0] is not everyone:
        found = _MADE[key] = (everyone, dist.new_group(numbers, use_local_synchronization=True))
    return Group(rank, len(numbers), numbers[0], found[1])
