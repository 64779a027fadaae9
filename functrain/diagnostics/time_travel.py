"""The state after any update of a run, trained again from the nearest earlier checkpoint."""

import dataclasses
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from functrain.checkpoint import (
    Checkpointer,
    CheckpointInfo,
    CheckpointWarning,
    DamagedCheckpointError,
    read_checkpoint,
    verify_checkpoint,
)
from functrain.data import Portion
from functrain.diagnostics.reproduction import as_recorded, recorded_options
from functrain.distributed import current_world
from functrain.foundation.errors import CheckpointError
from functrain.foundation.numbers import is_integer
from functrain.foundation.scratch import scratch_folder
from functrain.loop import Event, FitResult, Stop, fit, on
from functrain.loop.events import Callback
from functrain.loop.feeds import training_feed
from functrain.loop.output.log_files import readable_records
from functrain.loop.resume.metadata import metadata_of
from functrain.optim import EarlyStopping, Plateau
from functrain.step.state import TrainState, require_state

# Trains to the end: `fit` with everything but `run_dir`, `resume` and `callbacks`.
Train = Callable[..., FitResult]


class Rebuilt(NamedTuple):
    """Where a state that was rebuilt is.

    Attributes:
        path: its checkpoint.
        start: the checkpoint that training began at; None for the run's beginning.
    """

    path: Path
    start: CheckpointInfo | None


def state_at(
    state: TrainState,
    loader: Any,
    run_dir: str | os.PathLike[str],
    step: int,
    *,
    out: str | os.PathLike[str] | None = None,
    eval_loader: Any = None,
    eval_every: int = 1,
    watch: str | None = None,
    plateau: Plateau | None = None,
    early_stopping: EarlyStopping | None = None,
) -> TrainState:
    """The state of a run after any of its updates, bit for bit.

    Training starts at the nearest earlier checkpoint, or at the beginning, and computes as the run did: compiled or
    not, with its threads and flags. Nothing is written into the run's directory. After the last update of an epoch it
    is the state that the epoch's checkpoint has. What callbacks did to states and batches is not done again.

    Args:
        state: the state that the run began with, from `init_state`.
        loader: the training data, as given to `fit`.
        run_dir: the run's directory.
        step: the number of updates, from 0 to what the run has reached.
        out: also save the state as a checkpoint in this directory, which must not exist yet.
        eval_loader, eval_every, watch, plateau, early_stopping: as given to `fit`; needed if the run had such a rule.

    Raises:
        ValueError: `step` is not between 0 and what the run has reached.
        CheckpointError: a checkpoint does not fit `state`, or `out` exists.

    Example:
        >>> import tempfile, torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
        >>> with tempfile.TemporaryDirectory() as run:
        ...     _ = ft.fit(state, data, epochs=5, keep=1, run_dir=run, compile=False, progress=False)
        ...     ft.state_at(state, data, run, 3).step
        3
    """
    require_state("state_at", state)
    run_dir = Path(run_dir)
    folder = run_dir / "checkpoints"
    check_step(step, reached(run_dir), run_dir)
    if out is not None and Path(out).exists():
        raise CheckpointError(f"{out} exists: choose another directory for the checkpoint")
    infos = Checkpointer(folder, read_only=True).infos() if folder.is_dir() else []
    rule = early_stopping or plateau
    options: dict[str, Any] = {
        "eval_loader": eval_loader,
        "eval_every": eval_every,
        "watch": watch,
        "watch_mode": "min" if rule is None else rule.mode,
        "plateau": plateau,
        "early_stopping": early_stopping and dataclasses.replace(early_stopping, restore_best=False),
        "steps": step + 1,
        "progress": False,
        "on_signal": "exit",
    }
    if infos:
        options |= {**recorded_options(infos[-1])._asdict(), "micro_batch": metadata_of(infos[-1]).micro_batch}
    portion = Portion(options.get("limit_batches"), options.get("overfit_batches"))
    feed = training_feed(state, loader, current_world(), portion)
    per_epoch = feed.micro_batches(0, state.recipe.accumulate, options.get("tail", "extend"))
    feed.stream.close()
    with scratch_folder() as scratch:
        rebuilt = rebuild(partial(fit, state, loader, **options), [folder], step, scratch, state, per_epoch)
        if out is not None:
            place(rebuilt.path, Path(out))
        found: TrainState = read_checkpoint(rebuilt.path, state).tree
    return found


def rebuild(
    train: Train,
    folders: Iterable[Path],
    step: int,
    scratch: Path,
    like: TrainState,
    per_epoch: int | None,
    *,
    since: int | None = None,
) -> Rebuilt:
    """Train to an update in a directory of its own.

    Args:
        train: the run's `fit` without `run_dir`, `resume` and `callbacks`.
        folders: that may hold checkpoints of the run.
        step: the update.
        scratch: an empty directory, which becomes a run's.
        like: a state of the run's, for the device.
        per_epoch: micro-batches of an epoch, if that is known.
        since: begin no later than at this update; default: at the nearest checkpoint.
    """
    start, newest = nearest(folders, step if since is None else since)
    with as_recorded({} if newest is None else metadata_of(newest).environment, like.device):
        train(
            run_dir=scratch,
            resume="auto" if start is None else str(start.path),
            callbacks=[stop_at(step, per_epoch)],
        )
    made = Checkpointer(scratch / "checkpoints", read_only=True).infos()
    if not made and start is not None:  # there was nothing to train
        return Rebuilt(start.path, start)
    if not made or made[-1].step != step:
        raise CheckpointError(f"training ended at step {made[-1].step if made else 0}, before step {step}")
    return Rebuilt(made[-1].path, start)


def stop_at(step: int, per_epoch: int | None) -> Callback:
    """A callback that ends a run after an update; the last one of an epoch with the epoch's end."""

    @on("before_loop", "before_epoch", "after_step")
    def stop(event: Event) -> Stop | None:
        goes_on = event.state.step < step or event.state.batch_idx == per_epoch
        return None if goes_on else Stop()

    return stop


def nearest(folders: Iterable[Path], step: int) -> tuple[CheckpointInfo | None, CheckpointInfo | None]:
    """The newest undamaged checkpoint that is no later than an update, and the newest of all."""
    there = [folder for folder in folders if folder.is_dir()]
    infos = [info for folder in there for info in Checkpointer(folder, read_only=True).infos()]
    infos.sort(key=lambda info: (info.step, info.micro_step))
    # A NONFINITE one has a state that was not trained on from there.
    earlier = [info for info in infos if (info.step, info.micro_step) <= (step, 0) and info.status != "NONFINITE"]
    for info in reversed(earlier):
        try:
            verify_checkpoint(info.path)
        except DamagedCheckpointError as error:
            warnings.warn(f"{error}; an earlier one is used", CheckpointWarning, stacklevel=2)
        else:
            return info, infos[-1]
    return None, infos[-1] if infos else None


def reached(run_dir: Path) -> int:
    """The update that a run has reached, by its log and its checkpoints.

    Raises:
        CheckpointError: there is neither.
    """
    folder = run_dir / "checkpoints"
    steps = [info.step for info in Checkpointer(folder, read_only=True).infos()] if folder.is_dir() else []
    steps += [record["step"] for record in readable_records(run_dir).records]
    if not steps:
        raise CheckpointError(f"{run_dir} has no checkpoint and no log: nothing was trained there")
    return max(steps)


def check_step(step: int, last: int, run_dir: Path) -> None:
    """Refuse an update that a run has not reached.

    Raises:
        ValueError: likewise.
    """
    if not is_integer(step, 0) or step > last:
        raise ValueError(f"step must be a whole number from 0 to {last}, which {run_dir} has reached; got {step!r}")


def place(checkpoint: Path, out: Path) -> None:
    """Copy a checkpoint to a directory, which appears when it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.parent, ".placing-") as folder:
        shutil.copytree(checkpoint.resolve(), folder / out.name)
        os.rename(folder / out.name, out)
