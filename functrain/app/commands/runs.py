"""`functrain runs`: list the runs in a directory."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from functrain.app.commands.command import Command, path

DESCRIPTION = """\
List the runs in a directory and in its folders: status, step, epoch, the best value of the watched metric, and how
long ago the run last wrote.

A run is running, finished, interrupted (by a signal or a kill), failed, stopped (by a callback) or unreadable. Of a
script's run that is over, the command knows only that: ended.

  functrain runs
  functrain runs runs/sweep --sort best
  functrain runs --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument(
        "folder", type=path, nargs="?", default=Path("runs"), metavar="DIR", help="that holds the runs (default: runs)"
    )
    parser.add_argument(
        "--sort",
        choices=("name", "status", "step", "epoch", "best", "age"),
        default="name",
        help="the column to sort by (default: name)",
    )
    parser.add_argument("--reverse", action="store_true", help="the largest first")
    parser.add_argument("--json", action="store_true", help="print JSON")


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """What the command prints."""
    from functrain.app.runs.listing import runs

    return runs(arguments.folder, arguments.sort, arguments.reverse, arguments.json)


COMMAND = Command(
    name="runs",
    summary="list runs: status, step, best metric, age",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
)
