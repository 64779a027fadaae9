"""`functrain schema`: write the JSON Schema of configurations, which editors complete and check with."""

import argparse
from collections.abc import Iterator

from functrain.app.commands.command import Command, path

DESCRIPTION = """\
Print the JSON Schema (draft 2020-12) of a configuration, or write it to FILE. With it an editor completes keys, shows
their meaning, and marks mistakes. In a YAML file name it in the first line:

  # yaml-language-server: $schema=functrain.schema.json

  functrain schema functrain.schema.json
  functrain schema
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument("out", type=path, nargs="?", metavar="FILE", help="the file (default: print the schema)")


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """What the command prints."""
    from functrain.app.config.catalogue import FILE
    from functrain.foundation.errors import ConfigError

    text = FILE.read_text(encoding="utf-8")
    if arguments.out is None:
        yield text.rstrip("\n")
        return
    if arguments.out.suffix != ".json":
        raise ConfigError(f"{arguments.out}: the file of a JSON Schema ends in .json")
    arguments.out.write_text(text, encoding="utf-8")
    yield f"wrote {arguments.out}; first line of a YAML file: # yaml-language-server: $schema={arguments.out}"


COMMAND = Command(
    name="schema",
    summary="write the JSON Schema of configurations, for editors",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
)
