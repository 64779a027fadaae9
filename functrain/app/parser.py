"""The parser of the command line. It imports the standard library only, so that `--help` is fast."""

import argparse
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from functrain.app.commands import (
    at,
    bisect,
    branch,
    clean,
    compare,
    completion,
    config,
    curves,
    diff,
    doctor,
    evaluate,
    explain,
    export,
    find_batch_size,
    find_lr,
    hunt,
    init,
    listing,
    plan,
    predict,
    profile,
    replay,
    reproduce,
    runs,
    schema,
    show,
    summary,
    sweep,
    train,
    unstack,
    verify,
)
from functrain.app.commands.command import Command

# `functrain --help` lists them in this order.
COMMANDS: Mapping[str, Command] = {
    module.COMMAND.name: module.COMMAND
    for module in (
        train,
        sweep,
        evaluate,
        predict,
        explain,
        runs,
        show,
        curves,
        compare,
        export,
        summary,
        plan,
        profile,
        verify,
        diff,
        replay,
        reproduce,
        bisect,
        at,
        branch,
        hunt,
        find_lr,
        find_batch_size,
        unstack,
        clean,
        config,
        listing,
        schema,
        completion,
        init,
        doctor,
    )
}


EXAMPLE = "  functrain "


def examples(command: Command) -> list[str]:
    """The command lines that a command's help ends with."""
    return [line.strip() for line in command.description.splitlines() if line.startswith(EXAMPLE)]


def build_parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser of all commands, and each command's own."""
    parser = _Parser(
        prog="functrain", description="Train PyTorch models, with runs that resume bit for bit.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    common = _Parser(add_help=False)
    for target, default in ((parser, False), (common, argparse.SUPPRESS)):
        target.add_argument("--debug", action="store_true", default=default, help="show the traceback of an error")
    trust = _Parser(add_help=False)
    trust.add_argument(
        "--trust",
        action="store_true",
        help="run code that somebody else's run or checkpoint names, or that lies in a run's directory",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        own = subparsers.add_parser(
            command.name,
            help=command.summary,
            description="\n".join(each for each in command.description.splitlines() if not each.startswith(EXAMPLE)),
            epilog="\n".join(["examples:", *(f"  {each}" for each in examples(command))]),
            parents=[common, trust] if command.runs_code else [common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_options(own)
    return parser, subparsers.choices


class _Parser(argparse.ArgumentParser):
    """Says in words what argparse says in its own terms."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, the usage and one message."""
        message = re.sub(r"argument (\S+): ignored explicit argument (.+)", r"\1 takes no value; got \2", message)
        message = re.sub(r"argument (\S+): expected one argument", r"\1 needs a value", message)
        super().error(message)


class _Version(argparse.Action):
    """Looks the version up when asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"functrain {version('functrain')}")
        parser.exit()
