"""Weights & Biases: a run's records as a run there, on line or in files of its own (`mode="offline"`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from functrain.loop.declaring import setting
from functrain.loop.kinds import TEXT, TEXTS, one_of
from functrain.loop.output.log_files import Record
from functrain.loop.output.sinks import FAILED, FINISHED, INTERRUPTED, SinkRun, Tracker
from functrain.loop.output.tensorboard import scalars

STEP = "step"  # the axis of all charts: updates
EXIT_CODES = {FINISHED: 0, INTERRUPTED: 143, FAILED: 1}


@dataclass(frozen=True, kw_only=True)
class WandbOptions:
    """How a run stands in Weights & Biases."""

    project: str | None = setting(None, TEXT, "the project; default: W&B's own.", bits=False)
    entity: str | None = setting(None, TEXT, "the user or team; default: W&B's own.", bits=False)
    name: str | None = setting(None, TEXT, "the run's name; default: that of the run directory.", bits=False)
    group: str | None = setting(None, TEXT, "the group of runs that it belongs to.", bits=False)
    tags: Sequence[str] = setting((), TEXTS, "its tags.", bits=False)
    notes: str | None = setting(None, TEXT, "a description.", bits=False)
    mode: Literal["online", "offline", "disabled"] | None = setting(
        None,
        one_of("online", "offline", "disabled"),
        '"offline" only writes files, which `wandb sync` uploads; default: the variable WANDB_MODE, or "online".',
        bits=False,
    )


class _Run:
    def __init__(self, run: Any, *, is_ours: bool) -> None:
        self._run, self._is_ours = run, is_ours
        self.id: str = run.id
        self.place = str(run.dir).removesuffix("/files") if run.offline or run.disabled else str(run.url)
        run.define_metric("*", step_metric=STEP)

    def log(self, records: Sequence[Record], first: int) -> None:
        """Log a row for each record. In a run of the user's own, W&B counts the rows."""
        for number, record in enumerate(records, first):
            row = {STEP: record["step"], **scalars(record)}
            self._run.log(row, step=number if self._is_ours else None)

    def close(self, status: str) -> None:
        """End the run, if it began here."""
        if self._is_ours:
            self._run.finish(exit_code=EXIT_CODES[status])


def _open(options: WandbOptions, run: SinkRun) -> _Run:
    """The user's run, where there is one; else a new one, or the one to go on with."""
    import wandb

    if wandb.run is not None:
        return _Run(wandb.run, is_ours=False)
    return _Run(
        wandb.init(
            id=run.id,
            resume="allow",
            dir=str(run.directory),
            config=dict(run.config),
            allow_val_change=True,
            project=options.project,
            entity=options.entity,
            name=options.name or run.directory.name,
            group=options.group,
            tags=list(options.tags) or None,
            notes=options.notes,
            mode=options.mode,
            settings=wandb.Settings(console="off", silent=True),
        ),
        is_ours=True,
    )


WANDB = Tracker("wandb", "Weights & Biases", "wandb", WandbOptions, _open)
