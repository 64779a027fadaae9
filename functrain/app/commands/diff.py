"""`functrain diff`: what two checkpoints differ in."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Compare two checkpoints bit for bit (of a run, its last one): which leaves differ, in how many elements, where
first, and how many units in the last place (ulps) lie between the two values there. Exit code 1 if they differ.

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
