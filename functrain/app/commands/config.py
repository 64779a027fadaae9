"""`functrain config`: show a merged configuration, with the origin of each value."""

import argparse
from collections.abc import Iterator

from functrain.app.commands.command import Command, add_config, count, path

DESCRIPTION = """\
Show the configuration that the file, the files that it extends, the environment and the overrides make together, with
the origin of each value: file:line:column, the override, or the default. The output is a configuration itself. The
command checks the keys and values, and imports no function of your own. Of a configuration with stages it shows each
stage as a whole; --stage shows one alone.

With --from-deepspeed it prints what a DeepSpeed configuration is here: a file for `extends:`. One error names all keys
that have no counterpart (see docs/deepspeed.md).

  functrain config configs/digits.yaml
  functrain config configs/digits.yaml training.epochs=5 optimizer.lr=3e-4
  functrain config configs/digits.yaml --json
  functrain config configs/digits_stages.yaml --stage dense
  functrain config --from-deepspeed ds.json --world 8 > ds.yaml
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    add_config(parser, optional=True)
    parser.add_argument("--json", action="store_true", help="print JSON: the values, and the origin of each key")
    parser.add_argument(
        "--from-deepspeed",
        type=path,
        metavar="FILE",
        help="in place of CONFIG: a DeepSpeed configuration, whose keys are printed as those of functrain",
    )
    parser.add_argument(
        "--world", type=count, metavar="N", help="with --from-deepspeed: the processes that it was written for"
    )


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """What the command prints."""
    if arguments.from_deepspeed is not None:
        from functrain.app.deepspeed.document import json_text, translated, yaml_text

        source = arguments.from_deepspeed
        translation = translated(source, arguments.world)
        yield from [json_text(translation)] if arguments.json else yaml_text(source, translation)
        return
    from functrain.app.config.showing import as_json, as_yaml, shown_config

    found = shown_config(arguments.config, arguments.overrides, arguments.stage)
    yield from as_json(found) if arguments.json else as_yaml(found)


def mistake(arguments: argparse.Namespace) -> str | None:
    """What is wrong with the arguments together."""
    if arguments.from_deepspeed is None:
        if arguments.world is not None:
            return "--world goes with --from-deepspeed"
        return "the following arguments are required: CONFIG" if arguments.config is None else None
    if arguments.config is not None or arguments.stage is not None:
        return "--from-deepspeed takes the place of CONFIG: write its output into a file that CONFIG extends"
    return None


COMMAND = Command(
    name="config",
    summary="show a merged configuration, with the origin of each value",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
    mistake=mistake,
)
