"""`functrain diff`: compare two checkpoints leaf by leaf."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from functrain.app.commands.command import FOUND
from functrain.app.runs.from_checkpoint import checkpoint_at
from functrain.app.tables import print_lines, print_table
from functrain.checkpoint import read_arrays
from functrain.loop.output.progress_line import counted
from functrain.step import Difference, diff_states

MOST_ROWS = 40
MOST_EXACT = 10**12  # ulps that are written out: more are another sign or another value altogether


def diff(left: str | Path, right: str | Path, console: Console) -> int:
    """The command: which leaves of two checkpoints differ, where first, and by how much.

    Args:
        left, right: a checkpoint's directory, or a run's, meaning its last checkpoint.
        console: what to print on.

    Returns:
        The exit code: 1 if they differ.
    """
    paths = [checkpoint_at(Path(path)) for path in (left, right)]
    ours, theirs = (read_arrays(path) for path in paths)
    # A leaf's path is a key here, so that it is escaped a second time; a group that is itself a leaf ends in a slash.
    found = [
        dataclasses.replace(difference, path=re.sub(r"\\(.)", r"\1", difference.path).removesuffix("/"))
        for difference in diff_states(ours, theirs)
    ]
    leaves = sum(map(len, ours.values()))
    if not found:
        print_lines(console, [f"equal: {counted(leaves, 'leaf', 'leaves')}, every bit"])
        return 0
    print_differences(console, found)
    print_lines(console, [f"{counted(len(found), 'leaf', 'leaves')} differ between {paths[0]} and {paths[1]}"])
    return FOUND


def print_differences(console: Console, found: Iterable[Difference]) -> None:
    """A row for each leaf, the first ones if there are many."""
    found = list(found)
    rows = [
        [
            difference.path,
            difference.reason,
            "" if difference.first is None else ", ".join(map(str, difference.first)) or "-",
            "" if difference.ulps is None else _short(difference.ulps),
            "" if difference.largest is None else f"{difference.largest:.3g}",
        ]
        for difference in found[:MOST_ROWS]
    ]
    print_table(console, ["leaf", "", "first at", "ulps there", "largest"], rows, left=2)
    if len(found) > MOST_ROWS:
        print_lines(console, [f"... and {len(found) - MOST_ROWS} more"])


def _short(number: int) -> str:
    return f"{number:,}" if number < MOST_EXACT else f"{number:.1e}"
