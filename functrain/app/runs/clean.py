"""`functrain clean`: remove checkpoints that are neither the best nor the last of their run."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from functrain.app.runs.directory import existing_run
from functrain.app.runs.listing import is_running, run_folders
from functrain.app.tables import print_lines, print_table
from functrain.checkpoint import Checkpointer, RunLock, RunLockedError
from functrain.checkpoint import files as checkpoint_files
from functrain.checkpoint.retention import Mode, rank_by_metric
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import shown_path
from functrain.foundation.units import size
from functrain.loop.output.progress_line import counted


@dataclass(frozen=True)
class Removable:
    """What can go of a run.

    Attributes:
        run: its directory.
        paths: checkpoints.
        nbytes: of their files.
    """

    run: Path
    paths: Sequence[Path]
    nbytes: int


def clean(folders: Sequence[Path], dry_run: bool, yes: bool, console: Console) -> None:
    """The command: list what can be removed, ask, and remove it.

    Args:
        folders: runs, or directories that hold runs.
        dry_run: only list it.
        yes: do not ask.
        console: what to print on.

    Raises:
        ConfigError: there is no such directory, or nobody can be asked.
    """
    found = [each for run in _runs(folders, console) if (each := removable(run)).paths]
    if not found:
        print_lines(console, ["nothing to remove: each run has its best and its last checkpoint only"])
        return
    rows = [[shown_path(each.run.absolute()), f"{len(each.paths)}", size(each.nbytes)] for each in found]
    print_table(console, ["run", "checkpoints", "size"], rows)
    count, nbytes = sum(len(each.paths) for each in found), sum(each.nbytes for each in found)
    what = f"{counted(count, 'checkpoint')} ({size(nbytes)}); the best and the last of each run stay"
    if dry_run:
        print_lines(console, [f"would remove {what}"])
    elif yes or _agreed(f"remove {what}? [y/N] "):
        removed = [path for each in found for path in _remove(each, console)]
        print_lines(console, [f"removed {counted(len(removed), 'checkpoint')}"])
    else:
        print_lines(console, ["nothing removed"])


def removable(run: Path) -> Removable:
    """The checkpoints of a run that are neither its best nor its last, and those that were set aside as damaged."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return Removable(run, (), 0)
    infos = Checkpointer(folder, read_only=True).infos()
    linked = {Path(os.path.realpath(folder / link)).name for link in ("last", "best")}
    # Either way of reading the metric, if the configuration does not tell.
    best = {info.name for mode in _modes(run) for info in rank_by_metric(infos, mode)[:1]}
    kept = linked | best | {info.name for info in infos[-1:]}
    paths = [info.path for info in infos if info.name not in kept] + checkpoint_files.list_set_aside(folder)
    return Removable(
        run, paths, sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file())
    )


def _modes(run: Path) -> Sequence[Mode]:
    try:
        return [existing_run(run)[1].evaluation.watch_mode]
    except ConfigError:
        return ["min", "max"]


def _runs(folders: Iterable[Path], console: Console) -> list[Path]:
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"there is no directory {folder}: give a run, or the directory that holds runs")
        inside = list(run_folders(folder))
        if not inside:
            raise ConfigError(f"there is no run in {folder}: give a run, or the directory that holds runs")
        found += inside
    for run in filter(is_running, found):
        print_lines(console, [f"{shown_path(run.absolute())} is running: it is left alone"])
    return sorted({run.resolve(): run for run in found if not is_running(run)}.values())


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("nobody can be asked, since standard input is no terminal: give --yes, or --dry-run to look")
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        return False


def _remove(each: Removable, console: Console) -> list[Path]:
    """Remove, under the run's lock; a run that has begun meanwhile is left alone."""
    try:
        with RunLock(each.run):
            now = removable(each.run).paths  # as it is now that nobody writes any more
            for path in now:
                checkpoint_files.delete(path)
    except RunLockedError:
        print_lines(console, [f"{shown_path(each.run.absolute())} is running by now: it is left alone"])
        return []
    return list(now)
