"""`functrain sweep`: what is asked for, and where."""

from contextlib import suppress
from pathlib import Path

from rich.console import Console

from functrain.app.config.files import is_staged_run
from functrain.app.sweeps.asked import Arguments, Sweep, asked
from functrain.app.sweeps.driver import Driver
from functrain.app.sweeps.points import Point, grid, listed, random_points, with_grid
from functrain.app.sweeps.suggesting import check_optuna
from functrain.foundation.errors import ConfigError, RunLockedError
from functrain.foundation.paths import absolute, shown_path
from functrain.foundation.run_lock import RunLock

RUNS = Path("runs")


def sweep(arguments: Arguments, console: Console) -> int:
    """The command; returns the exit code, 1 if a member failed.

    Raises:
        FunctrainError: for everything that the user can put right.
        KeyboardInterrupt: after a signal, when the members have saved their state.
    """
    wanted = asked(arguments)
    points = _points(wanted)
    folder = absolute(wanted.folder if wanted.folder is not None else RUNS / _default_name(wanted))
    if (folder / "config.yaml").is_file() or is_staged_run(folder):
        raise ConfigError(f"{shown_path(folder)} is the directory of a run: choose another one with --sweep-dir")
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        with RunLock(folder):
            return Driver(wanted, folder, console).run(points)
    except RunLockedError as error:
        raise RunLockedError(
            f"another sweep is at work in {shown_path(folder)}: {error.owner or 'an unknown process'}. Wait for it, "
            "end it, or choose another directory with --sweep-dir",
            error.owner,
        ) from None
    finally:
        with suppress(OSError):  # only empty ones: nothing was begun
            for each in made:
                each.rmdir()


def _default_name(wanted: Sweep) -> str:
    return "-".join([wanted.name, *([wanted.stage] if wanted.stage else []), "sweep"])


def _points(wanted: Sweep) -> list[Point]:
    """The members, but for those that a sampler suggests."""
    if wanted.halving is not None and wanted.all_stages:
        raise ConfigError(
            "--asha compares members after so many epochs of one run, and with --all-stages a member has several: give "
            "--stage NAME instead, or leave --asha out"
        )
    if wanted.halving is not None and wanted.vectorize:
        raise ConfigError(
            "--asha and --vectorize cannot be combined: members of a program train to one end. Leave one of them out"
        )
    if wanted.halving is not None and wanted.optuna is not None:
        raise ConfigError("--optuna and --asha cannot be combined: --random draws members that --asha can prune")
    if wanted.optuna is not None:
        check_optuna(wanted.space)
        return []
    if wanted.random is not None:
        return random_points(wanted.space, wanted.random, wanted.search_seed)
    if wanted.list_file is not None:
        return listed(wanted.list_file, wanted.space)
    if wanted.listed:
        return with_grid(wanted.listed, wanted.space, "sweep.members")
    if not wanted.space.keys:
        raise ConfigError(
            "nothing is searched: give a key several values, such as optimizer.lr=1e-3,3e-4, or use --list FILE"
        )
    return grid(wanted.space)
