"""An ensemble's run, and the runs of its members in its directory."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from functrain.app.config.build import set_threads
from functrain.app.config.schema import Config
from functrain.app.members.configs import member_configs, member_name
from functrain.app.members.unstacking import MemberRun, write_members
from functrain.app.runs.directory import RunDirectory, trusted_run
from functrain.app.runs.parts import Parts, build
from functrain.app.tables import print_lines
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import shown_path
from functrain.foundation.run_lock import RunLock


def write_ensemble(run: RunDirectory, config: Config, parts: Parts, say: Callable[[str], None]) -> list[Path]:
    """Write the runs of an ensemble's members; returns the directories of those that are new.

    Args:
        run: the ensemble's.
        config: likewise.
        parts: what it describes, with a fresh state.
        say: gets a line for each member that stays as it is.

    Raises:
        FunctrainError: there is no checkpoint, or a file cannot be written.
    """
    configs = member_configs(config)
    folders = [run.members / member_name(number, len(configs)) for number in range(len(configs))]
    members = [MemberRun(own, path, parts.loaders.train, parts.loaders.val) for own, path in zip(configs, folders)]
    return write_members(run, parts.state, members, say)


def unstack_run(path: Path, trust: bool, console: Console) -> None:
    """The command.

    Args:
        path: the ensemble's directory.
        trust: the user vouches for a run that somebody else wrote.
        console: what to print on.

    Raises:
        ConfigError: it is no ensemble.
        RunLockedError: it is being trained.
    """
    run, config = trusted_run(path, trust, members=True)
    if config.training.members is None:
        raise ConfigError(f"{path} is the run of one model already: training.members is not set in its config.yaml")
    set_threads(config)
    with RunLock(run.path):
        written = write_ensemble(run, config, build(config), lambda text: print_lines(console, [text]))
    lines = [f"written: {shown_path(folder)}" for folder in written]
    where = shown_path(run.members)
    print_lines(console, lines or [f"nothing to write: the members in {where} are of the ensemble's last checkpoint"])
