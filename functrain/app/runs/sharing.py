"""How a run is shared by several processes, as the section `distributed` of its configuration says."""

from functrain import distributed
from functrain.app.config.schema import Config
from functrain.distributed import World
from functrain.foundation.errors import ConfigError


def check_sharing(config: Config, world: World) -> None:
    """See that so many processes can share the run as it is configured.

    Raises:
        ConfigError: they cannot.
    """
    chosen = config.distributed
    _check_available(config)
    if chosen.mesh is not None:
        dp, tp = chosen.mesh.dp, chosen.mesh.tp
        wanted = tp if dp is None else dp * tp
        if world.size != wanted if dp is not None else world.size % tp:
            shape = f"tp={tp}" if dp is None else f"dp={dp} times tp={tp}"
            multiple = "a multiple of " if dp is None else ""
            raise ConfigError(
                f"distributed.mesh: {shape} needs {multiple}{wanted} processes, and the run has {world.size}: "
                f"start it with --nproc {wanted} or torchrun, or change the mesh"
            )
    if chosen.parts > 1 and chosen.parts % world.size:
        raise ConfigError(
            f"distributed.shards: {world.size} processes cannot share {chosen.parts} parts of a batch evenly: start "
            f"1, 2, 4, ... up to {chosen.parts} processes, or set other distributed.shards"
        )


def _check_available(config: Config) -> None:
    chosen = config.distributed
    what = ["strategy other than ddp"] * (chosen.strategy != "ddp") + ["reduction: exact"] * (chosen.parts > 1)
    missing = what if not hasattr(distributed, "shard") else []
    missing += ["offload_optimizer"] * (chosen.offload_optimizer is not None)
    missing += ["mesh with tp above 1"] * (chosen.mesh is not None and chosen.mesh.tp > 1)
    if missing:
        raise ConfigError(f"distributed: not available yet: {', '.join(missing)}; leave it out")
