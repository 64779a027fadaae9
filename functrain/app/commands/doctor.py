"""`functrain doctor`: check the machine and the installation."""

import argparse
from collections.abc import Generator
from pathlib import Path

from functrain.app.commands.command import Command, path

DESCRIPTION = """\
Check Python, torch, the other packages, the C++ compiler, threads, GPU, disk and caches, and say what to fix. Each
check ends within a minute. The exit code is 1 if something is broken.

  functrain doctor
  functrain doctor --run-dir /scratch/runs
  functrain doctor --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the parser."""
    parser.add_argument(
        "--run-dir",
        type=path,
        default=Path("runs"),
        metavar="DIR",
        help="where runs will be written: its disk is checked (default: runs)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def lines(arguments: argparse.Namespace) -> Generator[str, None, int]:
    """What the command prints; returns the exit code."""
    from functrain.app.doctor.report import doctor

    return doctor(arguments.run_dir, arguments.json)


COMMAND = Command(
    name="doctor",
    summary="check the machine and the installation",
    description=DESCRIPTION,
    add_options=add_options,
    lines=lines,
)
