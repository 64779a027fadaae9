"""`functrain at`: rebuild the state of a run after any update."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, natural, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Rebuild the state of a run after any of its updates, bit for bit, and save it as a checkpoint. The command trains
again from the nearest earlier checkpoint, or from the beginning, in a scratch directory. Where the run's log has a
digest on the way, the command compares it, and saves nothing if one differs.

  functrain at runs/digits 40
  functrain at runs/digits 40 --out states/at-40
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="a run's directory")
    parser.add_argument("step", type=natural, metavar="STEP", help="the number of updates; 0 is the first state")
    parser.add_argument(
        "--out", type=path, metavar="DIR", help="the checkpoint to write (default: RUN/states/step-<STEP>)"
    )
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar and no line per epoch")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.at import at

    progress = False if arguments.no_progress else None
    at(arguments.run, arguments.step, arguments.out, arguments.trust, progress, console)
    return 0


COMMAND = Command(
    name="at",
    summary="rebuild the state of a run after any update",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
