"""`functrain show`: show the progress of a run, or what a checkpoint holds."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Show the progress and the checkpoints of a run, or what one checkpoint holds.

  functrain show runs/digits
  functrain show runs/digits/checkpoints/best
  functrain show runs/digits --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("path", type=path, metavar="RUN|CHECKPOINT", help="the directory of a run or of a checkpoint")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.show import show

    show(arguments.path, console, as_json=arguments.json)
    return 0


COMMAND = Command(
    name="show",
    summary="show a run or a checkpoint",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
)
