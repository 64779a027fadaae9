"""The section `distributed` of a configuration: how several processes share one run."""

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from functrain.app.config.keys import Section, key

SHARDS = 8  # of a batch, under an exact reduction


class MeshConfig(Section):
    """How the processes are arranged. What is null follows from the others and the number of processes."""

    dp: int | None = key(None, "processes that share a batch: dp_replicate x dp_shard.", ge=1)
    dp_replicate: int | None = key(None, "groups of processes with a whole state each (hybrid sharding).", ge=1)
    dp_shard: int | None = key(None, "processes of a group, which share its state; null: all are one group.", ge=1)
    tp: int | None = key(None, "processes that share the layers of tensor_parallel; null: 1.", ge=1)

    def named(self) -> dict[str, int]:
        """The sizes that are given."""
        return {name: size for name, size in self if size is not None}


class DistributedConfig(Section):
    """How the processes of `--nproc` or torchrun share a run; see docs/sharding.md."""

    strategy: Literal["ddp", "zero1", "zero2", "zero3"] = key(
        "ddp",
        "what each process keeps whole. ddp: everything; zero1 and zero2: the parameters, and a part of the "
        "optimizer's state and of the average; zero3: a part of the parameters, too.",
    )
    offload_optimizer: Literal["cpu"] | None = key(
        None,
        "cpu: the optimizer's state and the average stay in the CPU's memory, and updates are computed there. null: "
        "all is on the device.",
    )
    blocks: list[str] = key(
        [],
        'paths of modules, or patterns such as "layers.*", for strategy zero3: their parameters are gathered when they '
        "run, and they run again in the backward pass. Passes are not compiled then.",
    )
    sync_batchnorm: bool = key(
        False,
        "each BatchNorm of the model takes the statistics of the examples of all processes (nn.SyncBatchNorm). "
        "`reduction: exact` does not allow it.",
    )
    mesh: MeshConfig | None = key(None, "how the processes are arranged. null: as many as are started, in one group.")
    tensor_parallel: Mapping[str, str] = key(
        {},
        'which linear layers the tp processes of the mesh share: patterns of module paths, such as "*.feed.0", to '
        "column (each has some of the outputs), row (some of the inputs) or column:3 (a column layer of three parts).",
    )
    backend: Literal["auto", "gloo", "nccl"] = key(
        "auto", "what sends between processes; auto: nccl between GPUs, gloo between CPUs."
    )
    reduction: Literal["exact", "fast"] = key(
        "fast",
        "how sums over the processes are taken. exact: in one order, so that any number of processes gives the same "
        "bits; fast: by an all-reduce.",
    )
    shards: int | None = key(
        None,
        "the parts that each batch is cut in under `reduction: exact`, whatever the number of processes, which must "
        f"divide it: a power of two. Default: {SHARDS}.",
        ge=1,
    )
    timeout_s: float = key(
        300.0, "seconds that a process waits for the others before all end with an error.", bits=False, gt=0
    )

    @property
    def parts(self) -> int:
        """The micro-batches that each batch is cut in."""
        return 1 if self.reduction == "fast" else self.shards or SHARDS

    @model_validator(mode="after")
    def _fits_together(self) -> "DistributedConfig":
        if self.shards is not None and self.reduction == "fast":
            raise ValueError(
                "has shards, the parts that an exact reduction adds up: set reduction to exact, or shards to null"
            )
        if self.sync_batchnorm and self.reduction == "exact":
            raise ValueError(
                "has sync_batchnorm, whose bits depend on the number of processes: set reduction to fast, or "
                "sync_batchnorm to false"
            )
        if self.blocks and self.strategy != "zero3":
            raise ValueError(
                f"has blocks, which are gathered from the shards of zero3; its strategy is {self.strategy}"
            )
        if self.mesh is not None and (self.mesh.dp_shard or 1) > 1 and self.strategy == "ddp":
            raise ValueError(
                "has mesh.dp_shard, processes that share a state's shards, and its strategy ddp keeps none: choose "
                "zero1, zero2 or zero3, or set mesh.dp"
            )
        tp = 1 if self.mesh is None else self.mesh.tp or 1
        if (tp > 1) != bool(self.tensor_parallel):
            raise ValueError(
                f"has mesh.tp={tp} and {len(self.tensor_parallel) or 'no'} patterns in tensor_parallel: processes that "
                "share layers need both"
            )
        if tp > 1 and (self.blocks or self.offload_optimizer):
            raise ValueError("has mesh.tp, which goes without blocks and offload_optimizer")
        if self.parts & (self.parts - 1):
            raise ValueError(
                f"has {self.parts} shards, which are added up in pairs: choose a power of two, 1, 2, 4, 8, ..."
            )
        return self
