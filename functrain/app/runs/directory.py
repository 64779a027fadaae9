"""The files of a run.

runs/<name>/config.yaml  environment.json  status.json  metrics.csv  metrics.jsonl  timing.csv  events/
            training_curves.png  lr_schedule.png  layer_statistics.png  checkpoints/  test/  README.md
            of an ensemble also members/
            of a branch also ancestry.json  start/; of functrain at also states/; of functrain explain also explain/
"""

import json
import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from functrain.app.config.files import is_staged_run, read_source
from functrain.app.config.loading import check_parameters, read_config
from functrain.app.config.schema import Config
from functrain.app.config.trust import trust_run
from functrain.checkpoint import Checkpointer, CheckpointInfo
from functrain.checkpoint.errors import RunLockedError
from functrain.foundation.errors import ConfigError, FunctrainError
from functrain.foundation.paths import shown_path
from functrain.foundation.run_lock import RunLock
from functrain.loop.output.log_files import LogWarning, Record, readable_records
from functrain.loop.output.tensorboard import FOLDER
from functrain.loop.resume.metadata import metadata_of


@dataclass(frozen=True)
class RunDirectory:
    """A run's directory. It may not exist yet."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The merged configuration that the run was started with last."""
        return self.path / "config.yaml"

    @property
    def checkpoint_folder(self) -> Path:
        """One directory for each checkpoint, and the links `last` and `best`."""
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        """TensorBoard's event file, if the run writes one."""
        return self.path / FOLDER

    @property
    def members(self) -> Path:
        """The runs of the members, of an ensemble."""
        return self.path / "members"

    def check(self) -> None:
        """See that the directory is one, or can be made; before anything is built.

        Raises:
            ConfigError: if something is in the way.
        """
        place = self.path
        while not place.exists():
            place = place.parent
        reason = "" if place.is_dir() else "a file"
        if place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
            reason = "a directory that you may not write to"
        if reason:
            raise ConfigError(
                f"the run directory {shown_path(self.path)} cannot be written to: {shown_path(place)} is {reason}; "
                "choose another one with --run-dir"
            )

    def results(self, split: str) -> Path:
        """Where the evaluation of a split goes."""
        return self.path / split

    def open(self) -> Checkpointer:
        """The checkpoints, for reading."""
        return Checkpointer(self.checkpoint_folder, read_only=True)

    def tidy(self, mode: Literal["min", "max"]) -> None:
        """Finish what a killed run left undone, unless another run is writing; see `Checkpointer.tidy`.

        Args:
            mode: whether the lowest or the highest metric is the best.
        """
        with suppress(RunLockedError), RunLock(self.path):
            Checkpointer(self.checkpoint_folder, mode=mode).tidy()

    def checkpoints(self) -> list[CheckpointInfo]:
        """The checkpoints, oldest first."""
        return self.open().infos() if self.checkpoint_folder.is_dir() else []

    def name_of(self, link: str) -> str | None:
        """The name of the checkpoint that `last` or `best` stands for."""
        path = self.checkpoint_folder / link
        return Path(os.path.realpath(path)).name if path.is_dir() else None

    def records(self) -> list[Record]:
        """The records of the log that can be read. A warning names a damage."""
        found = readable_records(self.path)
        if found.fault:
            warnings.warn(f"{found.fault}; {found.mended}", LogWarning, stacklevel=2)
        return found.records


def existing_run(path: str | Path) -> tuple[RunDirectory, Config]:
    """A run that was started before, and its configuration. No function that this names is imported.

    Raises:
        ConfigError: if there is none, or its configuration cannot be read.
    """
    run = RunDirectory(Path(path))
    if run.config_file.is_file():
        return run, read_config(run.config_file, recorded=True)[0]
    if is_staged_run(run.path):
        raise ConfigError(f"{path} holds the runs of stages: give one of them{stages_in(run.path)}")
    if not run.path.exists():
        raise ConfigError(f"there is no run directory {path}{runs_beside(run.path)}")
    raise ConfigError(f"{path} is no run directory: there is no config.yaml in it{runs_beside(run.path)}")


def trusted_run(path: str | Path, trust: bool, *, members: bool = False) -> tuple[RunDirectory, Config]:
    """As `existing_run`, with a configuration that may import its functions.

    Args:
        path: the run's directory.
        trust: the user vouches for a run that somebody else wrote.
        members: take the run of an ensemble, too.

    Raises:
        ConfigError: likewise; it is an ensemble; or it names functions, and it is not this user's (see
            `functrain.app.config.trust`).
    """
    run, config = existing_run(path)
    if not members:
        refuse_ensemble(config, run.path)
    config = trust_run(config, run.path, trust)
    check_parameters(config, read_source(run.config_file, recorded=True))
    return run, config


def refuse_ensemble(config: Config, run: Path) -> None:
    """Refuse the run of an ensemble where one model is needed.

    Raises:
        ConfigError: it is one.
    """
    count = config.training.members
    if count is None:
        return
    member = RunDirectory(run).members / "000"
    has = member.is_dir()
    where = shown_path(member) if has else f"{shown_path(member)}, once functrain unstack has written it"
    raise ConfigError(
        f"{shown_path(run)} is the run of an ensemble of {count} members, and this command takes one model: give a "
        f"member, such as {where}"
    )


def status(info: CheckpointInfo, config: Config) -> str:
    """What a checkpoint says about its run, in a word.

    Returns:
        "finished", "finished (early stopping)", "interrupted", "stopped (not finite)" or "unfinished".
    """
    if info.status == "INTERRUPTED":
        return "interrupted"
    if info.status == "NONFINITE":
        return "stopped (not finite)"
    if is_finished(info, config):
        return "finished"
    rule = config.training.early_stopping
    stopped = rule is not None and metadata_of(info).bad_evaluations >= rule.patience
    return "finished (early stopping)" if stopped and info.status == "COMPLETE" else "unfinished"


def is_finished(info: CheckpointInfo, config: Config) -> bool:
    """Whether nothing is left to train, by this configuration."""
    training = config.training
    if info.status != "COMPLETE":
        return False
    epochs_done = training.epochs is not None and (metadata_of(info).epoch or 0) >= training.epochs
    return epochs_done or (training.steps is not None and info.step >= training.steps)


def position(info: CheckpointInfo) -> str:
    """Where a checkpoint stands, in words: 'step 120, epoch 8, batch 1'."""
    metadata = metadata_of(info)
    if metadata.epoch is None:
        return f"step {info.step}"
    if not metadata.batch_idx:
        return f"step {info.step}, after epoch {metadata.epoch}"
    return f"step {info.step}, in epoch {metadata.epoch + 1} after batch {metadata.batch_idx}"


def write_text(path: Path, text: str) -> None:
    """Write a whole file, and make its folder. A kill leaves the old file or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise FunctrainError(f"{path} cannot be written: {error.strerror}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def stages_in(folder: Path) -> str:
    """': runs/a/one, runs/a/two', for a message about a directory that holds the runs of stages."""
    found = sorted(each.parent for each in folder.glob("*/config.yaml"))
    return f": {', '.join(map(str, found))}" if found else "; none has begun"


def runs_beside(path: Path) -> str:
    """'; it is in the run ...', or '; runs in ...: ...', for a message about a path that is no run."""
    for folder in list(path.absolute().parents)[:2]:  # a run's checkpoints/ or test/, or one of its checkpoints
        if (folder / "config.yaml").is_file():
            return f"; it is in the run {shown_path(folder)}"
    folder = path.parent
    found = sorted(p.parent.name for p in folder.glob("*/config.yaml")) if folder.is_dir() else []
    return f"; runs in {folder}: {', '.join(found[:10])}" if found else ""
