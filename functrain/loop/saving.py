"""Checkpoints of a run, and the way back. Imports checkpoint, optim, step, foundation.

A checkpoint is the whole `TrainState`; its metadata says how many log records belong to it, which
environment it was made in, and what a stateful loader wants to remember.
"""

import dataclasses
import shutil
import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optree
import torch

from functrain.checkpoint import Checkpointer, CheckpointInfo, CheckpointWarning
from functrain.distributed import barrier
from functrain.foundation import trees
from functrain.foundation.errors import CheckpointError
from functrain.loop.environment import differences
from functrain.optim import LearningRateState, learning_rate
from functrain.step.state import TrainState

LOGS = ("metrics.jsonl", "metrics.csv")


class ResumeWarning(UserWarning):
    """A resumed run may not continue bit for bit, and why."""


@dataclass(frozen=True)
class Position:
    """What a run must remember beside its state.

    Attributes:
        records: log records that belong to the state.
        metric_names: what the slots of `epoch_totals` hold.
        batch_size: rows that the training batches are padded to, 0 before the first.
        stream: a stateful loader's own state.
    """

    records: int = 0
    batch_size: int = 0
    metric_names: tuple[str, ...] = ()
    stream: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Saver:
    """Writes a run's checkpoints.

    Attributes:
        checkpointer: where to.
        constant: metadata that every checkpoint carries: environment, learning rate, the user's own.
        copy: the state's storage will be written to after the save was asked for (donation).
    """

    checkpointer: Checkpointer
    constant: Mapping[str, Any]
    copy: bool

    def save(
        self, state: TrainState, position: Position, *, status: str = "COMPLETE", metric: float | None = None
    ) -> None:
        """Begin to write a checkpoint. One that fails is reported; training goes on with the last good one."""
        metadata = {
            **self.constant,
            "records": position.records,
            "metric_names": list(position.metric_names),
            "batch_size": position.batch_size,
            "stream": _to_json(position.stream),
            "epoch": state.epoch,
            "batch_idx": state.batch_idx,
            "samples_seen": state.samples_seen,
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

    def finish(self) -> None:
        """Wait until everything is on disk.

        Raises:
            CheckpointError: if the last save failed.
        """
        self.checkpointer.wait()


def restore(
    checkpointer: Checkpointer, like: TrainState, constant: Mapping[str, Any], which: str
) -> tuple[TrainState, Position, CheckpointInfo]:
    """The state of a checkpoint, fitted to the run at hand; says what keeps it from going on bit for bit.

    Raises:
        CheckpointError: if there is none, or it belongs to another model or optimizer.
    """
    restored = checkpointer.restore(like, which)
    state, metadata = restored.tree, restored.info.metadata
    for reason in differences(metadata.get("environment", {}), constant["environment"]):
        warnings.warn(f"this resume is not bit-for-bit because {reason}", ResumeWarning, stacklevel=3)
    if metadata.get("lr") != constant["lr"]:
        warnings.warn(
            f"the initial learning rate was {metadata.get('lr')} and is {constant['lr']}: "
            "training goes on with the new one",
            ResumeWarning,
            stacklevel=3,
        )
        state = state.replace(opt_state=_with_learning_rate(state.opt_state, like.opt_state))
    position = Position(
        metadata["records"],
        metadata["batch_size"],
        tuple(metadata["metric_names"]),
        _from_json(metadata["stream"]),
    )
    return state, position, restored.info


def open_run(
    state: TrainState,
    run_dir: str | Path | None,
    resume: str,
    keep: int,
    watch_mode: Literal["min", "max"],
    constant: Mapping[str, Any],
    donate: bool,
    stack: ExitStack,
    *,
    leads: bool,
) -> tuple[Saver | None, TrainState, Position]:
    """The run's directory, and the state and position to start from.

    Raises:
        CheckpointError: if the directory cannot be written to, or holds another model's checkpoints.
    """
    if run_dir is None:
        if resume not in ("auto", "never"):
            raise ValueError("resume=PATH continues in a run directory: give run_dir too")
        return None, state, Position()
    run_dir = Path(run_dir)
    if leads:
        _make_writable(run_dir)
        if resume == "never":
            set_aside(run_dir)
    barrier()
    checkpointer = stack.enter_context(
        Checkpointer(run_dir / "checkpoints", keep=keep, mode=watch_mode, read_only=not leads)
    )
    saver = Saver(checkpointer, constant, copy=donate) if leads else None
    if resume not in ("auto", "never"):
        state, position, info = restore(checkpointer, state, constant, resume)
        position = _make_room(run_dir, checkpointer, info, position, leads)
    elif checkpointer.names():
        state, position, _ = restore(checkpointer, state, constant, "last")
    else:
        position = Position()
    barrier()  # nobody reads logs that are still being arranged, nobody writes what is still being read
    return saver, state, position


def _make_writable(run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CheckpointError(
            f"the run directory {run_dir} cannot be written to ({error.strerror}); choose another one or change its "
            "permissions"
        ) from error


def initial_learning_rate(state: TrainState) -> float | None:
    """The first learning rate of a fresh state's optimizer."""
    lr = learning_rate(state.opt_state)
    return None if lr is None else lr.item()


def set_aside(run_dir: Path) -> None:
    """Move an earlier run's checkpoints and logs to `previous-N`, if there is one."""
    _move([run_dir / name for name in ("checkpoints", *LOGS)], run_dir)


def _make_room(
    run_dir: Path, checkpointer: Checkpointer, info: CheckpointInfo, position: Position, leads: bool
) -> Position:
    """Arrange the run's directory behind a checkpoint that was named: what came after it must not be the newest.

    Continuing a checkpoint from elsewhere, the log that belongs to it comes along.
    """
    log = info.path.parent.parent / LOGS[0]
    inside = info.path.parent == checkpointer.directory.resolve()
    if not inside and not log.is_file():
        position = dataclasses.replace(position, records=0)
    barrier()
    if leads and inside:
        names = checkpointer.names()
        _move([checkpointer.directory / name for name in names[names.index(info.name) + 1 :]], run_dir)
    elif leads:
        set_aside(run_dir)
        if log.is_file():
            shutil.copyfile(log, run_dir / LOGS[0])
    return position


def _move(paths: Iterable[Path], run_dir: Path) -> None:
    present = [path for path in paths if path.exists()]
    if not present:
        return
    number = 1
    while (target := run_dir / f"previous-{number}").exists():
        number += 1
    target.mkdir()
    for path in present:
        path.rename(target / path.name)


def _with_learning_rate(opt_state: Any, like: Any) -> Any:
    """`opt_state` with the learning rates of `like`, wherever the two hold one."""

    def is_rate(part: Any) -> bool:
        return isinstance(part, LearningRateState)

    def pick(old: Any, new: Any) -> Any:
        return dataclasses.replace(old, lr=new.lr) if is_rate(old) else old

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
