"""`functrain config`: show a merged configuration, with the origin of each value."""

import argparse
from collections.abc import Iterator

from functrain.app.commands.command import Command, add_config

DESCRIPTION = """\
Show the configuration that the file, the files that it extends, the environment and the overrides make together, with
the origin of each value: file:line:column, the override, or the default. The output is a configuration itself. The
command checks the keys and values, and imports no function of your own. Of a configuration with stages it shows each
stage as a whole; --stage shows one alone.

  functrain config configs/digits.yaml
  functrain config configs/digits.yaml training.epochs=5 optimizer.lr=3e-4
  functrain config configs/digits.yaml --json
  functrain config configs/digits_stages.yaml --stage dense
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON: the values, and the origin of each key")


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """What the command prints."""
    from functrain.app.config.showing import as_json, as_yaml, shown_config

    found = shown_config(arguments.config, arguments.overrides, arguments.stage)
    yield from as_json(found) if arguments.json else as_yaml(found)


COMMAND = Command(
    name="config",
    summary="show a merged configuration, with the origin of each value",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
)
