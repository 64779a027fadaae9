"""Checkpoints of a run, and the way back.

A checkpoint is the whole `TrainState`; its metadata says how many log records belong to it, which
environment it was made in, and what a stateful loader wants to remember.
"""

import dataclasses
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import optree
import torch

from functrain.checkpoint import Checkpointer, CheckpointInfo, CheckpointWarning, RunLock
from functrain.foundation import trees
from functrain.foundation.errors import CheckpointError
from functrain.loop.output.log_files import NO_MARK, LogMark
from functrain.loop.resume.environment import SETTING_REASONS, differences, other_descriptions, other_learning_rates
from functrain.optim import LearningRateState, learning_rate
from functrain.step.state import TrainState


class ResumeWarning(UserWarning):
    """A resumed run may not continue bit for bit, and why."""


class ResumeRefusedError(CheckpointError):
    """With `strict_resume`: the run would not continue bit for bit; the message names each reason."""


@dataclass(frozen=True)
class Position:
    """What a run must remember beside its state.

    Attributes:
        records: log records that belong to the state.
        log: what tells whether they are intact.
        metric_names: what the slots of `epoch_totals` hold.
        batch_size: rows that the training batches are padded to, 0 before the first.
        stream: a stateful loader's own state.
        micro_batch: examples in a part of a batch, if batches are taken in parts.
        status: of the checkpoint that the run goes on from; "" for none.
        programs: what its compiled steps computed, as `Programs` takes it.
    """

    records: int = 0
    batch_size: int = 0
    metric_names: tuple[str, ...] = ()
    stream: Mapping[str, Any] = field(default_factory=dict)
    micro_batch: int | None = None
    log: LogMark = NO_MARK
    status: str = ""
    programs: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Saver:
    """Writes a run's checkpoints.

    Attributes:
        checkpointer: where to.
        constant: metadata that every checkpoint carries: environment, learning rate, the user's own.
        copy: the state's storage will be written to after the save was asked for (donation).
        lock: of the run directory, asked before each save whether it is still there.
        programs: tells what the compiled steps compute, see `functrain.loop.resume.programs`.
        begun: when the last save was begun, or the run; nothing but when to save depends on it.
    """

    checkpointer: Checkpointer
    constant: Mapping[str, Any]
    copy: bool
    lock: RunLock | None = None
    begun: float = field(default_factory=lambda: monotonic())
    programs: Callable[[], Mapping[str, str]] = dict
    _newest: tuple[weakref.ref[TrainState], str] | None = None  # a state, which must not be kept alive, and its status

    def holds_now(self, state: TrainState, status: str) -> None:
        """The newest checkpoint is this state's."""
        self._newest = weakref.ref(state), status

    def holds(self, state: TrainState, status: str) -> bool:
        """Whether the newest checkpoint is this very state's, with this status."""
        return self._newest is not None and self._newest[0]() is state and self._newest[1] == status

    def seconds_since_save(self) -> float:
        """The time since the last save was begun."""
        return monotonic() - self.begun

    def save(
        self, state: TrainState, position: Position, *, status: str = "COMPLETE", metric: float | None = None
    ) -> None:
        """Begin to write a checkpoint. One that fails is reported; training goes on with the last good one.

        Raises:
            RunLostError: the run directory is gone.
        """
        if self.lock is not None:
            self.lock.check()
        self.begun = monotonic()
        metadata = {
            **self.constant,
            "settings": {**self.constant.get("settings", {}), "micro_batch": position.micro_batch},
            "records": position.records,
            "log": dataclasses.asdict(position.log),
            "metric_names": list(position.metric_names),
            "batch_size": position.batch_size,
            "stream": _to_json(position.stream),
            "epoch": state.epoch,
            "batch_idx": state.batch_idx,
            "samples_seen": state.samples_seen,
            "programs": self.programs(),
            "bad_evaluations": state.stopper.num_bad_epochs,
        }
        try:
            self.checkpointer.wait()
        except CheckpointError as error:
            warnings.warn(f"a checkpoint was not saved, training goes on: {error}", CheckpointWarning, stacklevel=2)
        self.checkpointer.save(
            state,
            step=state.step,
            micro_step=state.micro_step,
            status=status,
            metric=metric,
            metadata=metadata,
            copy=self.copy,
        )
        self.holds_now(state, status)

    def finish(self) -> None:
        """Wait until everything is on disk.

        Raises:
            CheckpointError: if the last save failed.
        """
        self.checkpointer.wait()


def restore(
    checkpointer: Checkpointer, like: TrainState, constant: Mapping[str, Any], which: str, *, strict: bool = False
) -> tuple[TrainState, Position, CheckpointInfo]:
    """The state of a checkpoint, fitted to the run at hand; says what keeps it from going on bit for bit.

    Raises:
        CheckpointError: if there is none, or it belongs to another model or optimizer.
        ResumeRefusedError: if `strict`, and something differs.
    """
    restored = checkpointer.restore(like, which)
    state, metadata = restored.tree, restored.info.metadata
    reasons = differences(metadata.get("environment", {}), constant["environment"])
    reasons += differences(metadata.get("settings", {}), constant["settings"], SETTING_REASONS)
    reasons += other_descriptions(metadata.get("described", {}), constant["described"])
    rates = other_learning_rates(metadata.get("described", {}), constant["described"])
    if metadata.get("lr") != constant["lr"]:
        rates = [f"the initial learning rate was {metadata.get('lr')} and is {constant['lr']}"]
    if strict and (reasons or rates):
        raise ResumeRefusedError(
            "\n  ".join(
                [f"strict_resume: going on from {restored.info.name} would not be bit for bit:", *reasons, *rates]
            )
            + "\nPut that back as it was, or go on without strict_resume"
        )
    for reason in reasons:
        warnings.warn(f"this resume is not bit-for-bit because {reason}", ResumeWarning, stacklevel=3)
    for rate in rates:
        warnings.warn(f"{rate}: training goes on with the new one", ResumeWarning, stacklevel=3)
    if rates:
        state = state.replace(opt_state=with_learning_rate(state.opt_state, like.opt_state))
    position = position_of(restored.info)
    if reasons:  # then the programs may differ as well, which need not be said
        position = dataclasses.replace(position, programs={})
    return state, position, restored.info


def position_of(info: CheckpointInfo) -> Position:
    """What a run's checkpoint says beside the state."""
    metadata = info.metadata
    return Position(
        metadata["records"],
        metadata["batch_size"],
        tuple(metadata["metric_names"]),
        _from_json(metadata["stream"]),
        metadata.get("settings", {}).get("micro_batch"),
        LogMark(**metadata.get("log", {})),
        info.status,
        metadata.get("programs", {}),
    )


def initial_learning_rate(state: TrainState) -> float | None:
    """The first learning rate of a fresh state's optimizer."""
    lr = learning_rate(state.opt_state)
    return None if lr is None else lr.item()


def with_learning_rate(opt_state: Any, like: Any, field: str = "lr") -> Any:
    """`opt_state` with the learning rates of `like` (or another field of theirs), wherever the two hold one."""

    def is_rate(part: Any) -> bool:
        return isinstance(part, LearningRateState)

    def pick(old: Any, new: Any) -> Any:
        return dataclasses.replace(old, **{field: getattr(new, field)}) if is_rate(old) else old

    return optree.tree_map(pick, opt_state, like, is_leaf=is_rate, namespace=trees.NAMESPACE)


def _to_json(value: Any) -> Any:
    """A loader's state as JSON: tensors (random generators keep theirs in one) become lists."""
    if isinstance(value, torch.Tensor):
        return {"__tensor__": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(
        f"the loader's state_dict() holds a {type(value).__name__}, which cannot be saved; it may hold numbers, "
        "strings, tensors, and lists and dictionaries of these"
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "__tensor__" in value:
            return torch.tensor(value["__tensor__"], dtype=getattr(torch, value["dtype"]))
        return {key: _from_json(item) for key, item in value.items()}
    return [_from_json(item) for item in value] if isinstance(value, list) else value
