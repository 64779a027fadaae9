"""`functrain find-lr`: the learning-rate range test."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_config, configuration_of_one, count, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Run the learning-rate range test: train a copy of the model for some updates while the learning rate grows from 1e-7
to 10. The command prints the loss, and suggests the rate at which the loss falls most steeply. It ignores the
configured schedule, and writes nothing but the figure.

  functrain find-lr configs/digits.yaml --figure lr.png
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser)
    parser.add_argument("--steps", type=count, default=100, metavar="N", help="number of updates (default: 100)")
    parser.add_argument("--figure", type=path, metavar="FILE", help="draw the curve: .png, .pdf or .svg")
    parser.add_argument("--compile", action="store_true", help="compile the step instead of running it eagerly")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.find_lr import find_lr

    find_lr(configuration_of_one(arguments), arguments.steps, arguments.compile, arguments.figure, console)
    return 0


COMMAND = Command(
    name="find-lr",
    summary="find a learning rate",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
