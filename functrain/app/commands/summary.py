"""`functrain summary`: a model's layers, and what a step takes."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_config, configuration_of_one, natural

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Show the layers of the model that CONFIG describes: what each gives out for a training batch, and its parameters. Below
them: the operations of an update, the memory of the state, and an estimate of the memory that a step takes. The model
runs on tensors without values, so nothing is computed, and nothing is written.

  functrain summary configs/digits.yaml
  functrain summary configs/digits.yaml data.batch_size=512 training.precision=bf16 --depth 1
  functrain summary configs/digits.yaml --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser)
    parser.add_argument(
        "--depth", type=natural, default=3, metavar="N", help="show layers that are in N others at most (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with all layers")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.model_summary import summary

    summary(configuration_of_one(arguments), arguments.depth, arguments.json, console)
    return 0


COMMAND = Command(
    name="summary",
    summary="show a model's layers, operations and memory",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
