"""`functrain hunt`: find the first value of a run that is not finite."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, count, name, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Find the first value that is not finite. The command trains again without compiling. It starts at the snapshot that
the run saved when its loss was not finite, or else at the newest checkpoint. It names the step, micro-batch, module
and leaf. The exit code is 1 if it finds such a value.

  functrain hunt runs/digits
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="a run's directory")
    parser.add_argument("--checkpoint", type=name, metavar="NAME", help="start at this checkpoint")
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
