"""`functrain profile`: measure where training time goes."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_config, configuration_of_one, count, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Measure how long each phase of training takes: data, step, metrics, checkpoint. The command also reports memory,
throughput, floating-point operations, and the share of the GPU's peak where the peak is known.

DIR receives profile.json and trace.json, a trace for ui.perfetto.dev. The command touches no run.

  functrain profile configs/digits.yaml
  functrain profile configs/digits.yaml data.num_workers=2 --steps 100 --out profiles/two-workers
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser)
    parser.add_argument("--steps", type=count, default=20, metavar="N", help="updates to measure (default: 20)")
    parser.add_argument("--out", type=path, metavar="DIR", help="where the files go (default: profiles/<name>)")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.profile import profile

    profile(configuration_of_one(arguments), arguments.steps, arguments.out, console)
    return 0


COMMAND = Command(
    name="profile",
    summary="measure where training time goes",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
