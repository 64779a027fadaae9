"""How a run is shared by several processes, as the section `distributed` of its configuration says."""

from functrain.app.config.schema import Config
from functrain.checkpoint import CheckpointInfo
from functrain.distributed import Sizes, World, shard, sizes_of
from functrain.foundation.errors import ConfigError
from functrain.loop.resume.metadata import metadata_of
from functrain.step import TrainState


def check_sharing(config: Config, world: World) -> Sizes:
    """The mesh of so many processes that share the run as it is configured.

    Raises:
        ConfigError: they cannot.
    """
    chosen, members = config.distributed, config.training.members
    if members is not None and world.size > 1:
        raise ConfigError(
            f"training.members: {members} members train in one process, and {world.size} are started: leave out "
            "--nproc or torchrun, or training.members"
        )
    mesh = {} if chosen.mesh is None else chosen.mesh.named()
    try:
        sizes = sizes_of(mesh, world)
    except ValueError as error:
        raise ConfigError(
            f"distributed.mesh: {', '.join(f'{name}={size}' for name, size in mesh.items())} does not fit: {error}. "
            "Start another number with --nproc or torchrun, or change the mesh"
        ) from error
    if chosen.parts > 1 and chosen.parts % sizes.dp:
        raise ConfigError(
            f"distributed.shards: {sizes.dp} processes cannot share {chosen.parts} parts of a batch evenly: start "
            f"1, 2, 4, ... up to {chosen.parts} processes, or set other distributed.shards"
        )
    return sizes


def shared(state: TrainState, config: Config) -> TrainState:
    """A whole state as this process keeps it. All processes of the run must call it, once they are joined.

    Plain data parallelism needs nothing here: `fit` makes a replica on each process.

    Raises:
        ConfigError: the configuration has what several processes cannot share.
    """
    chosen = config.distributed
    plain = chosen.strategy == "ddp" and chosen.reduction == "fast" and chosen.offload_optimizer is None
    if plain and not chosen.tensor_parallel:
        return state
    try:
        return shard(
            state,
            None if chosen.mesh is None else chosen.mesh.named(),
            chosen.strategy,
            reduction=chosen.reduction,
            offload_optimizer=chosen.offload_optimizer,
            blocks=chosen.blocks,
            tensor_parallel=chosen.tensor_parallel,
        )
    except ValueError as error:
        raise ConfigError(f"distributed: {error}") from error


def shared_again(state: TrainState, config: Config, trained: CheckpointInfo | None) -> TrainState:
    """A whole state as this process alone trains it again, with the bits of those that trained it.

    Args:
        state, config: as of `shared`.
        trained: a checkpoint of the run; None if it has none.

    Raises:
        ConfigError: several processes trained it, and took their sums in an order that one process does not take.
    """
    settings = {} if trained is None else metadata_of(trained).settings
    ranks = settings.get("ranks", 1)
    if ranks > 1 and settings.get("reduction") == "fast":
        raise ConfigError(
            f"{ranks} processes trained this run with distributed.reduction: fast, and one process adds their sums in "
            "another order: it cannot give the run's bits. Only a run with distributed.reduction: exact is trained "
            "again by any number of processes"
        )
    chosen = config.distributed
    if chosen.tensor_parallel:
        raise ConfigError(
            f"distributed.mesh: tp={chosen.mesh and chosen.mesh.tp} processes shared the layers of this run, and one "
            "process adds within them in another order: it cannot give the run's bits"
        )
    alone = config.model_copy(update={"distributed": chosen.model_copy(update={"mesh": None})})
    return shared(state, alone)
