"""`functrain diff`: compare two checkpoints bit for bit."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Compare two checkpoints bit for bit. For each leaf (a tensor of the state) that differs, the command prints in how
many elements it differs, where first, and by how many units in the last place (ulps) there. Given a run, it takes
the last checkpoint. The exit code is 1 if the checkpoints differ.

  functrain diff runs/a runs/b
  functrain diff runs/a/checkpoints/best runs/a/checkpoints/last
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    for name, metavar in (("left", "A"), ("right", "B")):
        parser.add_argument(name, type=path, metavar=metavar, help="the directory of a run or of a checkpoint")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.diff import diff

    return diff(arguments.left, arguments.right, console)


COMMAND = Command(
    name="diff",
    summary="compare two checkpoints bit for bit",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
)
