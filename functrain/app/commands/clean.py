"""`functrain clean`: remove checkpoints that are neither the best nor the last of their run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Remove checkpoints of runs. The best and the last checkpoint of each run always stay; so does all of a running run.
Checkpoints that were set aside as damaged are removed, too. The command asks before it removes anything.

  functrain clean runs --dry-run
  functrain clean runs/digits
  functrain clean runs --yes
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument(
        "folders",
        type=path,
        nargs="*",
        default=[Path("runs")],
        metavar="RUN|DIR",
        help="runs, or directories that hold runs (default: runs)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be removed")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.clean import clean

    clean(arguments.folders, arguments.dry_run, arguments.yes, console)
    return 0


COMMAND = Command(
    name="clean",
    summary="remove checkpoints that are neither best nor last",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
)
