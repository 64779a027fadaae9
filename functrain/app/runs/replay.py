"""`functrain replay`: train again from a checkpoint and compare with those that follow it."""

from pathlib import Path

from rich.console import Console

from functrain.app.commands.command import FOUND
from functrain.app.runs.diff import print_differences
from functrain.app.runs.from_checkpoint import checkpoint_at, rebuilt_run
from functrain.app.tables import print_lines, print_table
from functrain.checkpoint import Checkpointer
from functrain.diagnostics import Comparison, replay
from functrain.foundation.errors import ConfigError
from functrain.loop.output.progress_line import counted


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
    run = rebuilt_run(_start_of_replay(Path(path)), trust)
    report = replay(run.state, run.loader, run.info.path, steps=steps)
    print_lines(console, [f"note: {difference}" for difference in report.environment])
    rows = [[comparison.name, _outcome(comparison)] for comparison in report.compared]
    print_table(
        console, ["checkpoint", "trained again"], [*rows, *([n, "never reached"] for n in report.missed)], left=2
    )
    for comparison in report.compared:
        if comparison.differences:
            print_differences(console, comparison.differences)
    done = f"{counted(report.steps, 'step')} from {report.start} trained again"
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
            "checkpoint.save_every=N, which saves more often"
        )
    return last.parent / names[-2]


def _outcome(comparison: Comparison) -> str:
    if not comparison.differences:
        return "the same bits"
    return f"{counted(len(comparison.differences), 'leaf', 'leaves')} differ"
