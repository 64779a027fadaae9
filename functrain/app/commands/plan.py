"""`functrain plan`: what a run on many processes takes, before there are any."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_config, configuration_of_one, count, natural

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Say what each process of a run on N processes takes: memory between updates and at its peak, operations, the messages of
an update with their bytes, and the time that follows from the rates that are given. One process on tensors without
values takes the place of all, so nothing is computed, and neither the processes nor their GPUs need be there: the
steps are those of a CPU, whatever `training.device` is.

Times are those of arithmetic: operations, then messages in a ring, without overlap. See docs/scaling.md.

  functrain plan configs/digits.yaml --world 8 distributed.strategy=zero3
  functrain plan configs/digits.yaml --world 1024 data.batch_size=8192 --link-gbytes 25 --device-tflops 200
  functrain plan configs/digits.yaml --world 8 --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser)
    parser.add_argument("--world", type=count, required=True, metavar="N", help="the number of processes")
    parser.add_argument(
        "--device-tflops",
        type=rate,
        default=400.0,
        metavar="X",
        help="10^12 operations a second of a device, as they run in training (default: 400)",
    )
    parser.add_argument(
        "--link-gbytes",
        type=rate,
        default=50.0,
        metavar="X",
        help="10^9 bytes a second from a process to the next (default: 50)",
    )
    parser.add_argument(
        "--latency-us",
        type=natural,
        default=10,
        metavar="N",
        help="microseconds of a message from a process to the next, beside its bytes (default: 10)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def rate(text: str) -> float:
    """A number above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return found


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.plan import plan_run
    from functrain.diagnostics.planning import Rates

    rates = Rates(arguments.device_tflops, arguments.link_gbytes, float(arguments.latency_us))
    plan_run(configuration_of_one(arguments), arguments.world, rates, arguments.json, console)
    return 0


COMMAND = Command(
    name="plan",
    summary="say what a run on many processes takes",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
