"""`functrain compare`: metrics, configurations and parameters of several runs."""

import argparse
from collections.abc import Iterator

from functrain.app.commands.command import Command, path

DESCRIPTION = """\
Compare runs: the last values of their metrics, the lowest losses, and the keys of their configurations that differ.

  functrain compare runs/a runs/b
  functrain compare runs/a runs/b runs/c --csv comparison.csv --figure curves.png
  functrain compare runs/a runs/b --parameters
"""


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


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """What the command prints."""
    from functrain.app.plain_json import json_lines
    from functrain.app.runs.compare import compare, compared
    from functrain.foundation.errors import ConfigError

    if len(arguments.runs) < 2:
        raise ConfigError("give the directories of two or more runs; 'functrain show RUN' shows one")
    if arguments.parameters:
        from functrain.app.runs.compare_parameters import parameter_lines, parameter_values
    if arguments.json:
        found = compared(arguments.runs, arguments.csv, arguments.figure)
        if arguments.parameters:
            found["parameters"] = [parameter_values(arguments.runs[0], other) for other in arguments.runs[1:]]
        yield from json_lines(found)
        return
    yield from compare(arguments.runs, arguments.csv, arguments.figure)
    if arguments.parameters:
        for other in arguments.runs[1:]:
            yield ""
            yield from parameter_lines(arguments.runs[0], other)


COMMAND = Command(
    name="compare",
    summary="compare metrics, configurations and parameters of runs",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
)
