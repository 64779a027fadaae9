"""`functrain evaluate`: evaluate a run's checkpoint on a split of its data."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, name, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Evaluate a run's checkpoint on a split of its data. The command prints scores per class, and writes metrics.json and
metrics.csv to RUN/<split>/. If the run keeps averaged parameters (EMA), it evaluates them as well.

  functrain evaluate runs/digits
  functrain evaluate runs/digits --split val --checkpoint best
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="a run's directory")
    parser.add_argument(
        "--split", choices=("test", "val", "train"), default="test", help="the split of the data (default: test)"
    )
    parser.add_argument(
        "--checkpoint", type=name, default="last", metavar="best|last|NAME", help="the checkpoint (default: last)"
    )


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.evaluation import evaluate_run

    evaluate_run(
        arguments.run, split=arguments.split, checkpoint=arguments.checkpoint, trust=arguments.trust, console=console
    )
    return 0


COMMAND = Command(
    name="evaluate",
    summary="evaluate a run's checkpoint on a split of its data",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
