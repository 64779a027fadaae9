"""`functrain compare --parameters`: the parameters of two runs' last checkpoints, leaf by leaf."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from functrain.app.runs.from_checkpoint import checkpoint_at
from functrain.app.runs.plain_table import table
from functrain.checkpoint import read_arrays
from functrain.step import Difference, diff_states

GROUP = "params"


def parameter_lines(left: Path, right: Path) -> Iterator[str]:
    """A line for each parameter that differs.

    Raises:
        ConfigError: a run has no checkpoint.
        CheckpointError: one cannot be read.
    """
    found = _differences(left, right)
    title = f"{right.resolve().name}, compared with {left.resolve().name}"
    if not found:
        yield f"parameters of {title}: equal, every bit"
        return
    rows = [[each.path, each.reason, "" if each.largest is None else f"{each.largest:.3g}"] for each in found]
    yield from table([f"parameters of {title}", "", "largest difference"], rows, left=2)


def parameter_values(left: Path, right: Path) -> list[dict[str, Any]]:
    """The same, for programs."""
    return [{"path": each.path, "reason": each.reason, "largest": each.largest} for each in _differences(left, right)]


def _differences(left: Path, right: Path) -> list[Difference]:
    paths = [checkpoint_at(path) for path in (left, right)]
    ours, theirs = (read_arrays(path)[GROUP] for path in paths)
    return diff_states(ours, theirs)
