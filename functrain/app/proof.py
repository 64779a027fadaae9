"""`functrain verify`, `diff`, `replay` and `hunt`: whether what is on disk is whole, the same, and repeatable.

Imports checkpoint, loop, step and the neighbouring modules.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from functrain.app.rundir import runs_beside
from functrain.app.setting import checkpoint_at, setting_of
from functrain.app.tables import print_lines, print_table
from functrain.checkpoint import (
    Checkpointer,
    DamagedCheckpointError,
    read_arrays,
    verify_checkpoint,
    verify_checkpoints,
)
from functrain.diagnostics import Comparison, find_nonfinite, replay
from functrain.foundation.errors import ConfigError
from functrain.step import Difference, diff_states

MOST_ROWS = 40
MOST_EXACT = 10**12  # ulps that are written out: more are another sign or another value altogether
FOUND = 1  # exit code: damage, or a difference


def verify(path: str | Path, console: Console) -> int:
    """The command: read every checkpoint of a run, or one, and compare it with its checksums.

    Args:
        path: a run's directory, its folder of checkpoints, or a checkpoint's.
        console: what to print on.

    Returns:
        The exit code: 1 if one is damaged or cannot be read.
    """
    path = Path(path)
    if path.is_dir() and path.resolve().name.startswith("step-"):
        return _verify_one(path, console)
    folder = path if path.name == "checkpoints" and path.is_dir() else path / "checkpoints"
    if not folder.is_dir():
        raise ConfigError(f"{path} is no run directory with checkpoints: there is no {folder}{runs_beside(path)}")
    report = verify_checkpoints(folder)
    if not report.checkpoints:
        print_lines(console, [f"{path}: no checkpoint yet"])
    else:
        rows = [[verdict.name, verdict.status, verdict.reason] for verdict in report.checkpoints]
        print_table(console, ["checkpoint", "", "reason"], rows, left=3)
    if report.set_aside:
        print_lines(console, [f"found damaged earlier, and not used: {', '.join(report.set_aside)}"])
    bad = sum(verdict.status != "good" for verdict in report.checkpoints)
    if report.checkpoints and not bad:
        print_lines(console, [f"{_count(len(report.checkpoints), 'checkpoint')}, every byte as written"])
    elif bad:
        resumes = f"a resumed run goes on from {report.newest_good}" if report.newest_good else "none can be resumed"
        print_lines(console, [f"{bad} of {_count(len(report.checkpoints), 'checkpoint')} not good; {resumes}"])
    return FOUND if bad else 0


def _verify_one(path: Path, console: Console) -> int:
    try:
        info = verify_checkpoint(path)
    except DamagedCheckpointError as error:
        print_lines(console, [f"damaged: {error.reason}"])
        return FOUND
    print_lines(console, [f"{info.name}: every byte as written"])
    return 0


def diff(left: str | Path, right: str | Path, console: Console) -> int:
    """The command: which leaves of two checkpoints differ, where first, and by how much.

    Args:
        left, right: a checkpoint's directory, or a run's, meaning its last checkpoint.
        console: what to print on.

    Returns:
        The exit code: 1 if they differ.
    """
    paths = [checkpoint_at(Path(path)) for path in (left, right)]
    ours, theirs = (read_arrays(path) for path in paths)
    # A leaf's path is a key here, so that it is escaped a second time; a group that is itself a leaf ends in a slash.
    found = [
        dataclasses.replace(difference, path=re.sub(r"\\(.)", r"\1", difference.path).removesuffix("/"))
        for difference in diff_states(ours, theirs)
    ]
    leaves = sum(map(len, ours.values()))
    if not found:
        print_lines(console, [f"equal: {_count(leaves, 'leaf')}, every bit"])
        return 0
    print_differences(console, found)
    print_lines(console, [f"{_count(len(found), 'leaf')} differ between {paths[0]} and {paths[1]}"])
    return FOUND


def replay_checkpoint(path: str | Path, steps: int | None, trust: bool, console: Console) -> int:
    """The command: train again from a checkpoint and compare with those that follow it.

    Args:
        path: a checkpoint's directory, or a run's, meaning the checkpoint before its last one.
        steps: optimizer updates; None: up to the next checkpoint.
        trust: the user vouches for a checkpoint that somebody else wrote.
        console: what to print on.

    Returns:
        The exit code: 1 if a checkpoint is not confirmed.
    """
    setting = setting_of(_start_of_replay(Path(path)), trust)
    report = replay(setting.state, setting.loader, setting.info.path, steps=steps)
    print_lines(console, [f"note: {difference}" for difference in report.environment])
    rows = [[comparison.name, _outcome(comparison)] for comparison in report.compared]
    print_table(
        console, ["checkpoint", "trained again"], [*rows, *([n, "never reached"] for n in report.missed)], left=2
    )
    for comparison in report.compared:
        if comparison.differences:
            print_differences(console, comparison.differences)
    done = f"{_count(report.steps, 'step')} from {report.start} trained again"
    print_lines(console, [f"{done}: {'confirmed bit for bit' if report.ok else 'NOT confirmed'}"])
    return 0 if report.ok else FOUND


def _start_of_replay(path: Path) -> Path:
    last = checkpoint_at(path)
    if last == path:
        return path
    names = Checkpointer(last.parent, read_only=True).names()
    if len(names) < 2:
        raise ConfigError(
            f"{path} has one checkpoint, and a replay compares with the one after: train on, or with "
            "training.save_every=N, which saves more often"
        )
    return last.parent / names[-2]


def hunt(path: str | Path, checkpoint: str | None, steps: int, trust: bool, console: Console) -> int:
    """The command: train again eagerly until something is not finite, and say what.

    Args:
        path: a run's directory.
        checkpoint: the name of the one to begin with; None: the newest of status NONFINITE, or else the newest.
        steps: give up after so many updates.
        trust: the user vouches for a run that somebody else wrote.
        console: what to print on.

    Returns:
        The exit code: 1 if something was found.
    """
    folder = checkpoint_at(Path(path)).resolve().parent
    if checkpoint is None:
        infos = Checkpointer(folder, read_only=True).infos()
        stopped = [info.name for info in infos if info.status == "NONFINITE"]
        checkpoint = (stopped or [info.name for info in infos])[-1]
    setting = setting_of(checkpoint_at(folder / checkpoint, whole_runs=False), trust)
    found = find_nonfinite(setting.state, setting.loader, checkpoint=setting.info.path, steps=steps)
    if found is None:
        print_lines(console, [f"all is finite in {_count(steps, 'step')} from {checkpoint}"])
        return 0
    print_lines(console, [f"from {checkpoint}, trained again eagerly, the first that is not finite:", f"  {found}"])
    return FOUND


def print_differences(console: Console, found: Iterable[Difference]) -> None:
    """A row for each leaf, the first ones if there are many."""
    found = list(found)
    rows = [
        [
            difference.path,
            difference.reason,
            "" if difference.first is None else ", ".join(map(str, difference.first)) or "-",
            "" if difference.ulps is None else _short(difference.ulps),
            "" if difference.largest is None else f"{difference.largest:.3g}",
        ]
        for difference in found[:MOST_ROWS]
    ]
    print_table(console, ["leaf", "", "first at", "ulps there", "largest"], rows, left=2)
    if len(found) > MOST_ROWS:
        print_lines(console, [f"... and {len(found) - MOST_ROWS} more"])


def _short(number: int) -> str:
    return f"{number:,}" if number < MOST_EXACT else f"{number:.1e}"


def _outcome(comparison: Comparison) -> str:
    if not comparison.differences:
        return "the same bits"
    return f"{_count(len(comparison.differences), 'leaf')} differ"


def _count(number: int, noun: str) -> str:
    plural = "leaves" if noun == "leaf" else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
