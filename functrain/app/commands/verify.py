"""`functrain verify`: compare a run's checkpoints with their checksums."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Read every checkpoint of a run and compare it with its checksums. The exit code is 1 if one is damaged. The command
changes nothing.

  functrain verify runs/digits
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.verify import verify

    return verify(arguments.run, console)


COMMAND = Command(
    name="verify",
    summary="check all checkpoints of a run",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
)
