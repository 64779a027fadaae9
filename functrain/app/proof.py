"""`functrain verify`, `diff`, `replay` and `hunt`: whether what is on disk is whole, the same, and repeatable.

Imports checkpoint, loop, step and the neighbouring modules.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from rich.console import Console

from functrain.app.build import build_state, build_training_loader, run_length
from functrain.app.config import Config
from functrain.app.rundir import runs_beside
from functrain.app.tables import print_lines, print_table
from functrain.checkpoint import Checkpointer, CheckpointInfo, read_arrays, read_info, verify_checkpoints
from functrain.data import Loader
from functrain.foundation.errors import ConfigError
from functrain.loop import Comparison, find_nonfinite, replay
from functrain.step import Difference, TrainState, diff_states

INDEX = "functrain.json"  # of a checkpoint
MOST_ROWS = 40
FOUND = 1  # exit code: damage, or a difference


def verify(path: str | Path, console: Console) -> int:
    """The command: read every checkpoint of a run and compare it with its checksums.

    Returns:
        The exit code: 1 if one is damaged or cannot be read.
    """
    path = Path(path)
    folder = path / "checkpoints"
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


def replay_checkpoint(path: str | Path, steps: int | None, console: Console) -> int:
    """The command: train again from a checkpoint and compare with those that follow it.

    Args:
        path: a checkpoint's directory.
        steps: optimizer updates; None: up to the next checkpoint.
        console: what to print on.

    Returns:
        The exit code: 1 if a checkpoint is not confirmed.
    """
    setting = setting_of(checkpoint_at(Path(path), whole_runs=False))
    training = setting.config.training
    report = replay(
        setting.state,
        setting.loader,
        setting.info.path,
        steps=steps,
        tail=training.tail,
        compile=training.compile,
        backend=training.backend,
        mode=training.mode,
    )
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


def hunt(path: str | Path, checkpoint: str | None, steps: int, console: Console) -> int:
    """The command: train again eagerly until something is not finite, and say what.

    Args:
        path: a run's directory.
        checkpoint: the name of the one to begin with; None: the newest of status NONFINITE, or else the newest.
        steps: give up after so many updates.
        console: what to print on.

    Returns:
        The exit code: 1 if something was found.
    """
    folder = checkpoint_at(Path(path)).resolve().parent
    if checkpoint is None:
        infos = Checkpointer(folder, read_only=True).infos()
        stopped = [info.name for info in infos if info.status == "NONFINITE"]
        checkpoint = (stopped or [info.name for info in infos])[-1]
    setting = setting_of(checkpoint_at(folder / checkpoint, whole_runs=False))
    found = find_nonfinite(
        setting.state, setting.loader, checkpoint=setting.info.path, steps=steps, tail=setting.config.training.tail
    )
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
            "" if difference.ulps is None else f"{difference.ulps:,}",
            "" if difference.largest is None else f"{difference.largest:.3g}",
        ]
        for difference in found[:MOST_ROWS]
    ]
    print_table(console, ["leaf", "", "first at", "ulps there", "largest"], rows, left=2)
    if len(found) > MOST_ROWS:
        print_lines(console, [f"... and {len(found) - MOST_ROWS} more"])


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
    wanted = "neither a run with checkpoints nor a checkpoint" if whole_runs else "not a checkpoint"
    detail = "there is no such directory" if not path.is_dir() else f"it holds no {INDEX}"
    inside = sorted(p.name for p in (path / "checkpoints").glob("step-*") if p.is_dir())
    hint = f"; checkpoints of that run: {', '.join(inside)}" if inside and not whole_runs else runs_beside(path)
    raise ConfigError(f"{path} is {wanted}: {detail}{hint}")


class Setting(NamedTuple):
    """What a checkpoint was trained with."""

    info: CheckpointInfo
    config: Config
    state: TrainState
    loader: Loader


def setting_of(checkpoint: Path) -> Setting:
    """The configuration that a checkpoint carries, and what it describes.

    Raises:
        ConfigError: if it carries none, as one of a run without the command line, or one of another version.
    """
    info = read_info(checkpoint)
    values: Any = info.metadata.get("config")
    if values is None:
        raise ConfigError(
            f"{checkpoint} carries no configuration: it was not made by 'functrain train'. Use functrain.replay or "
            "functrain.find_nonfinite with the model and the data"
        )
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(f"the configuration in {checkpoint} is another version's: see its key {place!r}") from None
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    loader = build_training_loader(config)
    return Setting(info, config, build_state(config, run_length(config, loader).updates), loader)


def _outcome(comparison: Comparison) -> str:
    if not comparison.differences:
        return "the same bits"
    return f"{_count(len(comparison.differences), 'leaf')} differ"


def _count(number: int, noun: str) -> str:
    plural = "leaves" if noun == "leaf" else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
