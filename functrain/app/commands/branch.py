"""`functrain branch`: begin a new run with the state of another one."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, add_overrides, name, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Begin a new run with the state of another run after any of its updates, and train it to its end. The new run has the
other's configuration with the given changes. It records where it branched off; 'functrain show' prints that. Its log
begins with the other's, up to that update.

After an interruption 'functrain train DIR/config.yaml --run-dir DIR' continues the new run.

  functrain branch runs/digits@40 optimizer.lr=3e-4
  functrain branch runs/digits@40 training.epochs=30 name=longer
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("place", type=name, metavar="RUN@STEP", help="a run's directory and the number of updates")
    add_overrides(parser, "a change to the run's configuration")
    parser.add_argument(
        "--run-dir", type=path, metavar="DIR", help="the new run's directory (default: beside RUN, <name>-at-<STEP>)"
    )
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar and no line per epoch")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.branch import branch

    branch(
        arguments.place,
        arguments.overrides,
        arguments.run_dir,
        arguments.trust,
        not arguments.no_progress,
        console,
    )
    return 0


COMMAND = Command(
    name="branch",
    summary="begin a new run at a step of another one",
    description=DESCRIPTION,
    add_options=add_options,
    run=run,
    runs_code=True,
)
