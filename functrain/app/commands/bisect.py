"""`functrain bisect`: find the first update in which two runs part."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Find the first update, and then the first leaf of the state, in which two runs part. The command compares the digests
in the two logs. Between the last that is equal and the first that differs, it trains both runs again in a scratch
directory with a digest of each update. The exit code is 1 if the runs part.

  functrain bisect runs/a runs/b
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    for name, metavar in (("left", "A"), ("right", "B")):
        parser.add_argument(name, type=path, metavar=metavar, help="a run's directory")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar and no line per epoch")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.bisect import bisect

    progress = False if arguments.no_progress else None
    return bisect(arguments.left, arguments.right, arguments.trust, progress, console)


COMMAND = Command(
    name="bisect",
    summary="find the first update in which two runs part",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
