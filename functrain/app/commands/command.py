"""What a command of the command line consists of, and the kinds of its options."""

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console

    from functrain.app.config.schema import Config

    Run = Callable[[argparse.Namespace, Console], int]

FOUND = 1  # exit code of a command that looks for damage or a difference, and found some

AddOptions = Callable[[argparse.ArgumentParser], None]
Lines = Callable[[argparse.Namespace], Iterable[str]]


class Command(NamedTuple):
    """A command. (A dataclass would import `inspect`, which takes longer than all of `--help`.)

    Attributes:
        name: what the user types.
        summary: its line in `functrain --help`.
        description: the text of its own `--help`. Its lines that begin with "  functrain " are examples, and come last.
        add_options: adds its arguments to its parser.
        run: runs the command with the parsed arguments and a console to print on; returns the exit code.
        lines: instead of `run`, for a command that starts without torch and rich: the lines that it prints. A generator
            may return the exit code.
        shares: several processes that torchrun started can share the work of `run`.
        runs_code: the command runs functions that a configuration names, so it has --trust (docs/trust.md).
        mistake: what is wrong with the arguments together, as argparse would say it; None if nothing is.
    """

    name: str
    summary: str
    description: str
    add_options: AddOptions
    run: "Run | None" = None
    lines: Lines | None = None
    shares: bool = False
    runs_code: bool = False
    mistake: "Callable[[argparse.Namespace], str | None] | None" = None


def add_config(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add the configuration file, which may be optional, the overrides, and the choice of a stage."""
    parser.add_argument(
        "config",
        type=path,
        nargs="?" if optional else None,
        metavar="CONFIG",
        help="the configuration, a YAML, JSON or TOML file",
    )
    add_overrides(parser, "a value in YAML that replaces the file's; +key.path=value adds a parameter")
    parser.add_argument("--stage", type=name, metavar="NAME", help="a stage of a configuration with stages")


def configuration(arguments: argparse.Namespace) -> "Config":
    """What the arguments of `add_config` name, checked.

    Raises:
        ConfigError: with a line for each problem.
    """
    from functrain.app.config.loading import load_config

    return load_config(arguments.config, arguments.overrides, trust=arguments.trust, stage=arguments.stage)


def configuration_of_one(arguments: argparse.Namespace) -> "Config":
    """As `configuration`, for a command that measures one model.

    Raises:
        ConfigError: likewise, or the configuration is of an ensemble.
    """
    from functrain.foundation.errors import ConfigError

    config = configuration(arguments)
    if config.training.members is not None:
        raise ConfigError(
            f"{arguments.command} measures one model, and {arguments.config} is an ensemble of "
            f"{config.training.members} members: add training.members=null to measure one member"
        )
    return config


def add_overrides(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the overrides."""
    parser.add_argument("overrides", nargs="*", default=[], metavar="key.path=value", help=help)


def path(text: str) -> Path:
    """A path. `~` is expanded, since a shell does not expand it in `--out=~/x`."""
    if not text:
        raise argparse.ArgumentTypeError("a path must not be empty")
    return Path(os.path.expanduser(text))


def name(text: str) -> str:
    """A name that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("a name or path must not be empty")
    return text


def count(text: str) -> int:
    """A whole number, 1 or more."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text)


def natural(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """Seconds from "90", "1:30" or "0:01:30"."""
    parts = text.split(":")
    try:
        found = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        found = 0.0
    if len(parts) > 3 or not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time above 0: give seconds, MM:SS or HH:MM:SS")
    return found
