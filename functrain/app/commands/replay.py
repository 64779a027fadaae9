"""`functrain replay`: train again from a checkpoint and compare with those that follow it."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, count, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Train again from a checkpoint and compare bit for bit with the checkpoints that follow it. Given a run, the replay
starts at the checkpoint before the last one. The exit code is 1 if a checkpoint is not confirmed. The command writes
nothing.

  functrain replay runs/digits
  functrain replay runs/digits/checkpoints/step-00000017 --steps 34
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument(
        "checkpoint", type=path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint"
    )
    parser.add_argument(
        "--steps",
        type=count,
        metavar="N",
        help="optimizer updates to train again (default: up to the next checkpoint)",
    )


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.replay import replay_checkpoint

    return replay_checkpoint(arguments.checkpoint, arguments.steps, arguments.trust, console)


COMMAND = Command(
    name="replay",
    summary="train again from a checkpoint and compare bit for bit",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
