"""The section `distributed` of a configuration: how several processes share one run."""

from typing import Literal

from pydantic import model_validator

from functrain.app.config.keys import Section, key

SHARDS = 8  # of a batch, under an exact reduction


class MeshConfig(Section):
    """How the processes are arranged: all of them share the data."""

    dp: int | None = key(None, "processes that share a batch; null: as many as are started.", ge=1)


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
    mesh: MeshConfig | None = key(None, "how many processes there must be. null: as many as are started.")
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
        if self.parts & (self.parts - 1):
            raise ValueError(
                f"has {self.parts} shards, which are added up in pairs: choose a power of two, 1, 2, 4, 8, ..."
            )
        return self
