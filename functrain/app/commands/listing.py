"""`functrain list`: what a configuration can name."""

import argparse
from collections.abc import Iterator

from functrain.app.commands.command import Command, name

DESCRIPTION = """\
List what a configuration can name: models, data sets, objectives, losses, optimizers, schedules, metrics,
transforms, callbacks.
With a kind the command prints a line for each name, and with a name also its parameters.

Functions of your own need no registration: name them as package.module:function.

  functrain list
  functrain list optimizers
  functrain list optimizers adamw
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("kind", type=name, nargs="?", metavar="KIND", help="such as optimizers")
    parser.add_argument("name", type=name, nargs="?", metavar="NAME", help="such as adamw")
    parser.add_argument("--json", action="store_true", help="print JSON")


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """What the command prints."""
    from functrain.app.config.listing import all_kinds, as_json, kind_named, names_of, parameters_of

    kind = None if arguments.kind is None else kind_named(arguments.kind)
    if arguments.json:
        return as_json(kind, arguments.name)
    if kind is None:
        return all_kinds()
    return names_of(kind) if arguments.name is None else parameters_of(kind, arguments.name)


COMMAND = Command(
    name="list",
    summary="list models, optimizers, ... and their parameters",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
)
