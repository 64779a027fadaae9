"""Resumes broken on purpose, for the test that the comparison would find them.

All but one replace what `restore` gives back: as if functrain forgot to save or to restore that part. "sums" leaves
the order in which threads add to chance.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

from functrain.loop.resume import opening
from functrain.loop.resume.metadata import RunMetadata
from functrain.step import execution
from functrain.step.state import TrainState

Fault = Callable[[TrainState, TrainState, RunMetadata], tuple[TrainState, RunMetadata]]


def _keeps(*names: str) -> Fault:
    """These parts of the state stay as they are in a fresh one."""
    return lambda state, fresh, metadata: (state.replace(**{n: getattr(fresh, n) for n in names}), metadata)


def _forgets_buffers(state: TrainState, fresh: TrainState, metadata: RunMetadata) -> tuple[TrainState, RunMetadata]:
    """Of the open window, too, which holds those that its end will bring."""
    accumulator = dataclasses.replace(state.accumulator, buffers=fresh.accumulator.buffers)
    return state.replace(buffers=fresh.buffers, accumulator=accumulator), metadata


FAULTS: dict[str, Fault] = {
    "key": lambda state, fresh, metadata: (state.replace(key=state.key ^ 1), metadata),
    "order": lambda state, fresh, metadata: (state.replace(batch_idx=max(state.batch_idx - 1, 0)), metadata),
    "buffers": _forgets_buffers,
    "optimizer": _keeps("opt_state"),
    "accumulator": _keeps("accumulator"),
    "ema": _keeps("ema"),
    "loss scale": _keeps("loss_scale"),
    "epoch totals": _keeps("epoch_totals"),
    "rules": _keeps("plateau", "stopper"),
    "stream": lambda state, fresh, metadata: (state, dataclasses.replace(metadata, stream={})),
    "log": lambda state, fresh, metadata: (state, dataclasses.replace(metadata, records=metadata.records - 1)),
    "sums": lambda state, fresh, metadata: (state, metadata),
}


def plant(name: str) -> None:
    """Break the resumes of this process."""
    if name == "sums":
        execution.repeatable_sums = lambda device: contextlib.nullcontext()  # type: ignore[assignment]
    restore, fault = opening.restore, FAULTS[name]

    def broken(checkpointer: Any, like: TrainState, *args: Any, **kwargs: Any) -> Any:
        state, metadata, info = restore(checkpointer, like, *args, **kwargs)
        return *fault(state, like, metadata), info

    opening.restore = broken
