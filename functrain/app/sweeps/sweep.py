"""`functrain sweep`: what the command line asks for, and where."""

from contextlib import suppress
from pathlib import Path

from rich.console import Console

from functrain.app.config.resolving import WHOLE, resolve_stages
from functrain.app.sweeps.driver import Driver, Sweep
from functrain.app.sweeps.points import Point, grid, listed, random_points
from functrain.app.sweeps.space import Space, read_space
from functrain.app.sweeps.suggesting import check_optuna
from functrain.foundation.errors import ConfigError, RunLockedError
from functrain.foundation.paths import absolute, shown_path
from functrain.foundation.run_lock import RunLock

RUNS = Path("runs")


def sweep(asked: Sweep, console: Console) -> int:
    """The command; returns the exit code, 1 if a member failed.

    Raises:
        FunctrainError: for everything that the user can put right.
        KeyboardInterrupt: after a signal, when the members have saved their state.
    """
    space = read_space(asked.overrides)
    points = _points(asked, space)
    folder = absolute(asked.folder if asked.folder is not None else RUNS / f"{_name(asked.config, space)}-sweep")
    if (folder / "config.yaml").is_file():
        raise ConfigError(f"{shown_path(folder)} is the directory of a run: choose another one with --sweep-dir")
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        with RunLock(folder):
            return Driver(asked, space, folder, console).run(points)
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


def _points(asked: Sweep, space: Space) -> list[Point]:
    """The members, but for those that a sampler suggests."""
    kinds = {"--list": asked.list_file, "--random": asked.random, "--optuna": asked.optuna}
    given = [name for name, value in kinds.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are different searches: give one of them")
    if asked.optuna is not None:
        if asked.halving is not None:
            raise ConfigError("--optuna and --asha cannot be combined: --random draws members that --asha can prune")
        check_optuna(space)
        return []
    if asked.random is not None:
        return random_points(space, asked.random, asked.search_seed)
    if asked.list_file is not None:
        return listed(asked.list_file, space)
    if not space.keys:
        raise ConfigError(
            "nothing is searched: give a key several values, such as optimizer.lr=1e-3,3e-4, or use --list FILE"
        )
    return grid(space)


def _name(config: Path, space: Space) -> str:
    """The configuration's name. What is wrong with that is said by the planner."""
    fixed = [text for text in space.fixed if text.partition("=")[0].strip() == "name"]
    sources = resolve_stages(config, fixed)
    if WHOLE not in sources:
        raise ConfigError(
            f"{config} has the stages {', '.join(sources)}, and a sweep is of one run: write one to a file with "
            "'functrain config CONFIG --stage NAME > FILE'"
        )
    name = sources[WHOLE].values["name"]
    return name if isinstance(name, str) and name and not set(name) & set("/\\:\0\n") else config.stem
