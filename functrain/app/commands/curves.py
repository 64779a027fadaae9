"""`functrain curves`: draw the curves of a run."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Draw the curves of a run from its log. The run may still be running, and may be a script's.

  training_curves   losses and metrics with the best checkpoint marked, learning rate, gradient norm, loss scale,
                    training throughput
  lr_schedule       the learning rate alone
  layer_statistics  heat maps of the layers' gradients, updates and outputs, if the run logs them

  functrain curves runs/digits
  functrain curves runs/digits --format svg --out figures
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="a run's directory")
    parser.add_argument("--out", type=path, metavar="DIR", help="the folder for the figures (default: RUN)")
    parser.add_argument(
        "--format", nargs="+", choices=("png", "svg", "pdf"), default=["png"], help="of the files (default: png)"
    )


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.curves import curves_of_run

    curves_of_run(arguments.run, arguments.out, arguments.format, console)
    return 0


COMMAND = Command(
    name="curves",
    summary="draw the curves of a run",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
)
