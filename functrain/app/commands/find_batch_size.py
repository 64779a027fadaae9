"""`functrain find-batch-size`: find the largest batch that fits into memory."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_config, configuration_of_one, count

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Try training steps with larger and larger batches. The command prints the largest batch that fits into memory, and
the throughput of each size. It writes nothing.

  functrain find-batch-size configs/digits.yaml
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser)
    parser.add_argument(
        "--limit", type=count, metavar="N", help="the largest batch to try (default: the number of training examples)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the step instead of running it eagerly")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.find_batch_size import find_batch_size

    find_batch_size(configuration_of_one(arguments), arguments.limit, arguments.compile, console)
    return 0


COMMAND = Command(
    name="find-batch-size",
    summary="find the largest batch that fits into memory",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
