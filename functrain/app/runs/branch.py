"""`functrain branch`: begin a new run with the state of another one after any of its updates."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from functrain.app.config.loading import check_parameters, read_config
from functrain.app.config.schema import Config
from functrain.app.config.trust import trust_run
from functrain.app.runs.ancestry import FILE, START, Ancestry
from functrain.app.runs.at import trained_again
from functrain.app.runs.directory import RunDirectory, write_json
from functrain.app.runs.past import Past, confirmed, moment_of, nothing_left_behind, past_run
from functrain.app.runs.summary import Output
from functrain.app.runs.training import Request, train_run
from functrain.app.tables import print_lines
from functrain.diagnostics.time_travel import Rebuilt
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import absolute, shown_path
from functrain.foundation.scratch import scratch_folder
from functrain.loop.output.log_files import CSV, JSON
from functrain.step import digest


def branch(
    place: str, overrides: Sequence[str], run_dir: Path | None, trust: bool, progress: bool, console: Console
) -> None:
    """The command: rebuild the state, make the new run's directory, and train.

    Args:
        place: "RUN@STEP".
        overrides: changes to the configuration.
        run_dir: of the new run; None: beside the other run, under the new run's name.
        trust: the user vouches for a run that somebody else wrote.
        progress: whether to show the display.
        console: what to print on.

    Raises:
        ConfigError: for what the user can put right.
    """
    path, step = parse_place(place)
    past, _ = past_run(path, trust, None if progress else False)
    past.check(step)
    config = _config(past, step, overrides)
    target = absolute(run_dir if run_dir is not None else past.run.path.parent / config.name)
    if target.exists():
        raise ConfigError(f"{shown_path(target)} exists: give another directory with --run-dir, or another name=...")
    RunDirectory(target).check()
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target.parent, ".branch-") as scratch, nothing_left_behind("no run is begun"):
        rebuilt, state = past.rebuilt(step, scratch / "again")
        found = digest(state)
        confirmed(past, scratch / "again", rebuilt.start, moment_of(state), found)
        ancestry = Ancestry(shown_path(past.run.path), step, found, list(overrides), rebuilt.path.resolve().name)
        _make(scratch / "run", scratch / "again", past, rebuilt, ancestry)
        os.rename(scratch / "run", target)
    print_lines(console, [f"branches off {ancestry} ({trained_again(rebuilt, step)})"])
    request = Request(past.run.config_file, overrides, target, progress=progress, trust=trust, config=config)
    train_run(request, config, RunDirectory(target), Output(console))


def parse_place(text: str) -> tuple[Path, int]:
    """The run and the step of "RUN@STEP".

    Raises:
        ConfigError: it is something else.

    Example:
        >>> parse_place("runs/a@40")[1]
        40
    """
    run, at, step = text.rpartition("@")
    if not at or not run or not (step.isascii() and step.isdigit()):
        raise ConfigError(f"give a run and the number of its updates as RUN@STEP, such as runs/digits@40; got {text!r}")
    return Path(os.path.expanduser(run)), int(step)


def _config(past: Past, step: int, overrides: Sequence[str]) -> Config:
    """The new run's configuration: the other's, as it was last, with the changes."""
    named = any(text.partition("=")[0].strip() == "name" for text in overrides)
    before = read_config(past.run.config_file, recorded=True)[0]
    name = before.name if before.stage is None else before.stage
    changes = [*overrides, *([] if named else [f"name={name}-at-{step}"]), "init_from=null", "stage=null"]
    config, source = read_config(past.run.config_file, changes, recorded=True)
    config = trust_run(config, past.run.path, past.trust)
    check_parameters(config, source)
    return config


def _make(folder: Path, again: Path, past: Past, rebuilt: Rebuilt, ancestry: Ancestry) -> None:
    """The directory of a run that has not begun: its ancestry, and the state and log that it begins with."""
    start = folder / START
    start.mkdir(parents=True)
    shutil.copytree(rebuilt.path.resolve(), start / "checkpoints" / ancestry.checkpoint)
    for name in (JSON, CSV):
        log = next((each / name for each in (again, past.run.path) if (each / name).is_file()), None)
        if log is not None:
            shutil.copyfile(log, start / name)
    write_json(folder / FILE, ancestry.to_json())
