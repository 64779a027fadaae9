"""Find a checkpoint that the command line names, and build what it was trained with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from functrain.app.config.build import build_state, build_training_loader, run_length, set_threads
from functrain.app.config.files import is_staged_run
from functrain.app.config.former import in_its_place
from functrain.app.config.loading import check_parameters
from functrain.app.config.problems import schema_problem
from functrain.app.config.resolving import overridden
from functrain.app.config.schema import Config
from functrain.app.config.source import Source, config_error
from functrain.app.config.trust import trust_checkpoint
from functrain.app.runs.directory import refuse_ensemble, runs_beside, stages_in
from functrain.app.runs.sharing import shared_again
from functrain.checkpoint import CheckpointInfo, read_info
from functrain.data import Loader
from functrain.foundation.errors import ConfigError
from functrain.loop.resume.metadata import metadata_of
from functrain.step import TrainState

INDEX = "functrain.json"  # of a checkpoint


def checkpoint_at(path: Path, *, whole_runs: bool = True) -> Path:
    """The directory of a checkpoint: the path itself, or, of a run, its last one.

    Raises:
        ConfigError: if it is neither.
    """
    if (path / INDEX).is_file():
        return path
    last = path / "checkpoints" / "last"
    if whole_runs and last.is_dir():
        return last
    raise ConfigError(_no_checkpoint(path, whole_runs))


def what_is_there(path: Path, missing: str) -> str:
    """Why a path is not the directory that it should be, for a message."""
    if path.is_dir():
        return f"it holds no {missing}"
    return "it is a file" if path.exists() else "there is no such directory"


def _no_checkpoint(path: Path, whole_runs: bool) -> str:
    if whole_runs and is_staged_run(path):
        return f"{path} holds the runs of stages: give one of them{stages_in(path)}"
    wanted = "neither a run with checkpoints nor a checkpoint" if whole_runs else "not a checkpoint"
    folder = path / "checkpoints" if path.is_dir() else path.parent
    inside = sorted(p.name for p in folder.glob("step-*") if p.is_dir())
    listed = inside and (not whole_runs or not path.is_dir())
    hint = f"; checkpoints of that run: {', '.join(inside)}" if listed else runs_beside(path)
    return f"{path} is {wanted}: {what_is_there(path, INDEX)}{hint}"


class RebuiltRun(NamedTuple):
    """What a checkpoint was trained with, built again from the configuration that it carries."""

    info: CheckpointInfo
    config: Config
    state: TrainState
    loader: Loader


def rebuilt_run(checkpoint: Path, trust: bool) -> RebuiltRun:
    """The configuration that a checkpoint carries, and the objects that it describes, to train on from there.

    Raises:
        ConfigError: see `config_of` and `shared_again`.
    """
    info, config = config_of(checkpoint, trust)
    set_threads(config)
    loader = build_training_loader(config)
    state = shared_again(build_state(config, run_length(config, loader)), config, info)
    return RebuiltRun(info, config, state, loader)


def config_of(checkpoint: Path, trust: bool, *, members: bool = False) -> tuple[CheckpointInfo, Config]:
    """What a checkpoint says about itself, and the configuration that it carries.

    Args:
        checkpoint: its directory.
        trust: the user vouches for a checkpoint that somebody else wrote.
        members: take the checkpoint of an ensemble, too.

    Raises:
        ConfigError: if it carries none, as one of a run without the command line, or one of another version; it is
            an ensemble's; or it names functions, and it is not this user's (see `functrain.app.config.trust`).
    """
    info, config, source = config_and_source(checkpoint, trust)
    if not members:
        refuse_ensemble(config, checkpoint.resolve().parent.parent)
    check_parameters(config, source)
    return info, config


def config_and_source(
    checkpoint: Path, trust: bool, overrides: Sequence[str] = ()
) -> tuple[CheckpointInfo, Config, Source]:
    """As `config_of`, with changes, and with the origins of the values; their functions are not imported yet."""
    info = read_info(checkpoint)
    values: Any = metadata_of(info).config
    if values is None:
        raise ConfigError(
            f"{checkpoint} carries no configuration: it was not made by 'functrain train'. In Python there are "
            "functrain.replay, functrain.find_nonfinite and functrain.checkpoint.save_torch for it"
        )
    recorded = in_its_place(Source(values, {(): f"the configuration in {checkpoint}"}), recorded=True)
    source = overridden(recorded, overrides).sound()
    try:
        return info, trust_checkpoint(Config.model_validate(source.values), info, trust), source
    except ValidationError as error:
        if overrides:
            raise config_error(schema_problem(details, source).text for details in error.errors()) from None
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(f"the configuration in {checkpoint} is another version's: see its key {place!r}") from None
