"""`functrain init`: write a starter project."""

import argparse
from collections.abc import Iterator

from functrain.app.commands.command import Command, path

DESCRIPTION = """\
Write a small project that trains at once: a configuration, a model, data, tests and a README. Its comments say what
to change for your own. The command overwrites no file: it writes nothing if one of its files exists.

  functrain init my-project
  functrain init .
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("folder", type=path, metavar="DIR", help="the project's directory; it may exist")


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """What the command prints."""
    from functrain.app.starting import start_project

    return start_project(arguments.folder)


COMMAND = Command(
    name="init",
    summary="write a starter project that trains",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
)
