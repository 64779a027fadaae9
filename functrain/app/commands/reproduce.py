"""`functrain reproduce`: train a run again from its directory, and compare each digest."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Train a run again in a scratch directory, from what its own directory says: configuration, git commit, uncommitted
changes, environment. Compare the state with each digest in the run's log. The command first says what differs from
the environment, the code and the data that the run had. The exit code is 1 if a digest differs; the command names
the first. The run's directory is not changed.

  functrain reproduce runs/digits
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="a run's directory")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar and no line per epoch")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.reproduce import reproduce

    return reproduce(arguments.run, arguments.trust, False if arguments.no_progress else None, console)


COMMAND = Command(
    name="reproduce",
    summary="train a run again and compare each digest",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
