"""Checkpoints of a run, and the way back.

A checkpoint is the whole `TrainState`; its metadata says how many log records belong to it, which
environment it was made in, and what a stateful loader wants to remember.
"""

import dataclasses
import warnings
import weakref
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import optree

from functrain.checkpoint import Checkpointer, CheckpointInfo, CheckpointWarning, RunLock
from functrain.foundation import trees
from functrain.foundation.errors import CheckpointError
from functrain.loop.resume.environment import SETTING_REASONS, differences, other_descriptions, other_learning_rates
from functrain.loop.resume.metadata import RunMetadata, metadata_of
from functrain.optim import LearningRateState, learning_rate
from functrain.step.measures import lacks_accumulators
from functrain.step.state import TrainState


class ResumeWarning(UserWarning):
    """A resumed run may not continue bit for bit, and why."""


class ResumeRefusedError(CheckpointError):
    """With `strict_resume`: the run would not continue bit for bit; the message names each reason."""


@dataclass
class Saver:
    """Writes a run's checkpoints.

    Attributes:
        checkpointer: where to.
        copy: the state's storage will be written to after the save was asked for (donation).
        lock: of the run directory, asked before each save whether it is still there.
        begun: when the last save was begun, or the run; nothing but when to save depends on it.
    """

    checkpointer: Checkpointer
    copy: bool
    lock: RunLock | None = None
    begun: float = field(default_factory=lambda: monotonic())
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
        self, state: TrainState, metadata: RunMetadata, *, status: str = "COMPLETE", metric: float | None = None
    ) -> None:
        """Begin to write a checkpoint. One that fails is reported; training goes on with the last good one.

        Raises:
            RunLostError: the run directory is gone.
        """
        if self.lock is not None:
            self.lock.check()
        self.begun = monotonic()
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
            metadata=metadata.to_json(),
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
    checkpointer: Checkpointer, like: TrainState, now: RunMetadata, which: str, *, strict: bool = False
) -> tuple[TrainState, RunMetadata, CheckpointInfo]:
    """The state of a checkpoint, fitted to the run at hand; says what keeps it from going on bit for bit.

    Args:
        checkpointer: reads it.
        like: the run's fresh state.
        now: what the run at hand would save with that.
        which: the checkpoint, as `Checkpointer.restore` takes it.
        strict: refuse what would not go on bit for bit.

    Raises:
        CheckpointError: if there is none, or it belongs to another model or optimizer.
        ResumeRefusedError: if `strict`, and something differs.
    """
    restored = checkpointer.restore(like, which)
    state, metadata = restored.tree, metadata_of(restored.info)
    reasons = what_differs(metadata, now)
    rates = other_learning_rates(metadata.described, now.described)
    if metadata.lr != now.lr and metadata.epoch is not None:
        rates = [f"the initial learning rate was {metadata.lr} and is {now.lr}"]
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
    if state.batch_idx and lacks_accumulators(state):
        warnings.warn(
            "other metrics are asked for than before: the train_ values of this epoch count from here on",
            ResumeWarning,
            stacklevel=3,
        )
    if rates:
        state = state.replace(opt_state=with_learning_rate(state.opt_state, like.opt_state))
    if reasons:  # then the programs may differ as well, which need not be said
        metadata = dataclasses.replace(metadata, programs={})
    return state, metadata, restored.info


def what_differs(before: RunMetadata, now: RunMetadata) -> list[str]:
    """Why a run does not go on bit for bit, a sentence each; learning rates left out."""
    return (
        differences(before.environment, now.environment)
        + differences(before.settings, now.settings, SETTING_REASONS)
        + other_descriptions(before.described, now.described)
    )


def initial_learning_rate(state: TrainState) -> Any:
    """The first learning rate of a fresh state's optimizer; of a stack, a list with each member's."""
    lr = learning_rate(state.opt_state)
    return None if lr is None else lr.tolist()


def with_learning_rate(opt_state: Any, like: Any, field: str = "lr") -> Any:
    """`opt_state` with the learning rates of `like` (or another field of theirs), wherever the two hold one."""

    def is_rate(part: Any) -> bool:
        return isinstance(part, LearningRateState)

    def pick(old: Any, new: Any) -> Any:
        return dataclasses.replace(old, **{field: getattr(new, field)}) if is_rate(old) else old

    return optree.tree_map(pick, opt_state, like, is_leaf=is_rate, namespace=trees.NAMESPACE)
