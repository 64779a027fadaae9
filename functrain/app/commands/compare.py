"""`functrain compare`: metrics, configurations and parameters of several runs."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from functrain.app.commands.command import Command, name, path

if TYPE_CHECKING:
    from functrain.app.runs.compare_evaluated import Evaluated

DESCRIPTION = """\
Compare runs: the last values of their metrics, the lowest losses, and the keys of their configurations that differ.

--evaluate evaluates a checkpoint of each run on the same examples: metrics with confidence intervals, and paired tests
of each two runs (McNemar, DeLong, bootstrap), corrected for their number (Holm). It writes model_comparison.csv,
model_comparison.png, roc_comparison.png and other files to the folder comparison/.

  functrain compare runs/a runs/b
  functrain compare runs/a runs/b runs/c --csv comparison.csv --figure curves.png
  functrain compare runs/a runs/b --parameters
  functrain compare runs/a runs/b --evaluate --checkpoint best --metrics accuracy,f1
"""

SPLITS = ("test", "val", "train")
OF_EVALUATION = ("split", "checkpoint", "ema", "metrics", "same_examples", "out")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("runs", type=path, nargs="+", metavar="RUN", help="the directories of two or more runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--csv", type=path, metavar="FILE", help="also write the tables to this file")
    parser.add_argument("--figure", type=path, metavar="FILE", help="also draw the curves: .png, .pdf or .svg")
    parser.add_argument(
        "--parameters",
        action="store_true",
        help="also compare the parameters of the last checkpoints with those of the first run",
    )
    group = parser.add_argument_group("evaluation")
    group.add_argument("--evaluate", action="store_true", help="evaluate the runs on the same examples, and test them")
    group.add_argument("--split", choices=SPLITS, help="the split of the data (default: test)")
    group.add_argument(
        "--checkpoint", type=name, metavar="best|last|NAME", help="the checkpoint of each run (default: last)"
    )
    group.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="compare the averaged parameters, or not (default: of each run that keeps some)",
    )
    group.add_argument("--metrics", type=name, metavar="A,B", help="the metrics (default: all of the report)")
    group.add_argument(
        "--same-examples",
        action="store_true",
        default=None,
        help="the runs' data sets hold the same examples in the same order, prepared in several ways",
    )
    group.add_argument("--out", type=path, metavar="DIR", help="the folder for the files (default: comparison)")


def mistake(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the arguments together."""
    given = next((each for each in OF_EVALUATION if getattr(arguments, each) is not None), None)
    if given is None or arguments.evaluate:
        return None
    return f"--{given.replace('_', '-')} is an option of an evaluation; give --evaluate, too"


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """What the command prints."""
    from functrain.app.plain_json import json_lines
    from functrain.app.runs.compare import compare, compared
    from functrain.foundation.errors import ConfigError

    if len(arguments.runs) < 2:
        raise ConfigError("give the directories of two or more runs; 'functrain show RUN' shows one")
    if arguments.parameters:
        from functrain.app.runs.compare_parameters import parameter_lines, parameter_values
    evaluated = _evaluated(arguments) if arguments.evaluate else None
    if arguments.json:
        found = compared(arguments.runs, arguments.csv, arguments.figure)
        if arguments.parameters:
            found["parameters"] = [parameter_values(arguments.runs[0], other) for other in arguments.runs[1:]]
        if evaluated is not None:
            found["evaluation"] = evaluated.values()
        yield from json_lines(found)
        return
    yield from compare(arguments.runs, arguments.csv, arguments.figure)
    if arguments.parameters:
        for other in arguments.runs[1:]:
            yield ""
            yield from parameter_lines(arguments.runs[0], other)
    if evaluated is not None:
        yield ""
        yield from evaluated.lines()


def _evaluated(arguments: argparse.Namespace) -> "Evaluated":
    from functrain.app.runs.compare_evaluated import FOLDER, Asked, compare_evaluated

    asked = Asked(
        split=arguments.split or SPLITS[0],
        checkpoint=arguments.checkpoint or "last",
        ema=arguments.ema,
        metrics=None if arguments.metrics is None else arguments.metrics.split(","),
        same_examples=bool(arguments.same_examples),
        out=arguments.out or FOLDER,
        trust=arguments.trust,
    )
    return compare_evaluated(arguments.runs, asked)


COMMAND = Command(
    name="compare",
    summary="compare metrics, configurations and parameters of runs",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
    runs_code=True,
    mistake=mistake,
)
