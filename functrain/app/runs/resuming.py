"""`--resume PATH` without a configuration: it is in the run, in the stages' directory or in the checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from functrain.app.config.files import STAGES_FILE, is_staged_run
from functrain.app.config.loading import Stage, check_stages, read_config, read_stages
from functrain.app.config.resolving import WHOLE
from functrain.app.config.trust import trust_run, trust_staged
from functrain.app.runs.directory import runs_beside
from functrain.app.runs.from_checkpoint import INDEX, config_and_source
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import absolute


class Resumed(NamedTuple):
    """What a path to resume from comes to.

    Attributes:
        stages: of the configuration; one that is called "" of a run without stages.
        run_dir: of the run, or of the stages; None if a checkpoint lies in no run.
        resume: as of `fit`.
    """

    stages: Sequence[Stage]
    run_dir: Path | None
    resume: str


def resumed(path: Path, overrides: Sequence[str], trust: bool) -> Resumed:
    """The configuration and the directory of a run, of a run's stages, or of a checkpoint.

    Args:
        path: its directory.
        overrides: changes to the configuration.
        trust: the user vouches for what somebody else wrote.

    Raises:
        ConfigError: it is none of them, or not this user's (see `functrain.app.config.trust`).
    """
    path = absolute(path)
    if (path / "config.yaml").is_file():
        config, source = read_config(path / "config.yaml", overrides, recorded=True)
        found = Resumed([Stage(WHOLE, trust_run(config, path, trust), source)], path, "auto")
    elif is_staged_run(path):
        stages = read_stages(path / STAGES_FILE, overrides, recorded=True)
        found = Resumed(
            [stage._replace(config=trust_staged(stage.config, path, trust)) for stage in stages], path, "auto"
        )
    elif (path / INDEX).is_file():
        _, config, source = config_and_source(path, trust, overrides)
        run = path.resolve().parent.parent
        inside = run if (run / "config.yaml").is_file() else None
        found = Resumed([Stage(WHOLE, config, source)], inside, str(path))
    else:
        what = "it is no run directory and no checkpoint" if path.is_dir() else "there is no such directory"
        raise ConfigError(
            f"--resume {path}: {what}{runs_beside(path)}. Give a run, or a checkpoint in its folder checkpoints/; "
            "for a run that has not begun give its configuration, too"
        )
    check_stages(found.stages)
    return found
