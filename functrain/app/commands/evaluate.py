"""`functrain evaluate`: evaluate a run's checkpoint on a split of its data."""

import argparse
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, name, path

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """\
Evaluate a run's checkpoint on a split of its data. The command prints metrics with confidence intervals, and writes a
report to RUN/<split>/: report.html, report.txt, metrics.json, metrics.csv, figures, scores.npz and predictions. If the
run keeps averaged parameters (EMA), it evaluates them as well, and the report is of them.

  functrain evaluate runs/digits
  functrain evaluate runs/digits --split val --checkpoint best
  functrain evaluate runs/digits --all-checkpoints      # the metrics over the training
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("run", type=path, metavar="RUN", help="a run's directory")
    parser.add_argument(
        "--split", choices=("test", "val", "train"), default="test", help="the split of the data (default: test)"
    )
    parser.add_argument("--checkpoint", type=name, metavar="best|last|NAME", help="the checkpoint (default: last)")
    parser.add_argument("--all-checkpoints", action="store_true", help="evaluate each checkpoint of the run")
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="report on the averaged parameters, or not (default: if there are some)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: what metrics.json gets")


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Do it; returns the exit code."""
    from functrain.app.runs.evaluation import evaluate_all_checkpoints, evaluate_run
    from functrain.foundation.errors import ConfigError

    if arguments.all_checkpoints:
        if arguments.checkpoint is not None:
            raise ConfigError("--all-checkpoints evaluates each checkpoint: leave --checkpoint out, or it")
        evaluate_all_checkpoints(
            arguments.run,
            split=arguments.split,
            ema=arguments.ema,
            trust=arguments.trust,
            as_json=arguments.json,
            console=console,
        )
        return 0
    evaluate_run(
        arguments.run,
        split=arguments.split,
        checkpoint=arguments.checkpoint or "last",
        ema=arguments.ema,
        trust=arguments.trust,
        as_json=arguments.json,
        console=console,
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
