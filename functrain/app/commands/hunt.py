"""`functrain hunt`: find the first value of a run that is not finite."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, count, name, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Train again, eagerly, from the snapshot that a run left when its loss was not finite (or from its newest checkpoint),
and name the first step, micro-batch, module and leaf that is not finite. Exit code 1 if there is one.

  functrain hunt runs/digits
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="a run's directory")
    parser.add_argument("--checkpoint", type=name, metavar="NAME", help="begin with this one")
    parser.add_argument("--steps", type=count, default=100, metavar="N", help="give up after N updates (default: 100)")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.hunt import hunt

    return hunt(arguments.run, arguments.checkpoint, arguments.steps, arguments.trust, console)


COMMAND = Command(
    name="hunt",
    summary="find the first value that is not finite",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
