"""`functrain unstack`: write the members of an ensemble as runs of their own."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Write each member of an ensemble (training.members) as a run of its own, in RUN/members/000, 001, ... All commands take
such a directory: show, evaluate, predict, export, and train, which continues the member alone. When an ensemble has
ended, functrain train does this by itself. A member that was trained on in its directory stays as it is.

  functrain unstack runs/digits
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="the directory of an ensemble's run")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.members.ensemble import unstack_run

    unstack_run(arguments.run, arguments.trust, console)
    return 0


COMMAND = Command(
    name="unstack",
    summary="write the members of an ensemble as runs of their own",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
