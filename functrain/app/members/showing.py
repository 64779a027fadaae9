"""What `functrain show` says of an ensemble's members."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from functrain.app.config.schema import Config
from functrain.app.members.configs import member_name
from functrain.app.runs.directory import RunDirectory
from functrain.app.tables import print_lines, print_table
from functrain.foundation.paths import shown_path
from functrain.loop.output.log_files import MEMBERS
from functrain.loop.output.progress import format_value
from functrain.loop.output.progress_line import PREFIXES, exact
from functrain.loop.output.records import Record

MOST = 32  # members in a table


def ensemble_facts(run: RunDirectory, config: Config) -> list[tuple[str, str]]:
    """A line for an ensemble, and none for one model."""
    count = config.training.members
    if count is None:
        return []
    where = f"; each as a run in {shown_path(run.members)}" if run.members.is_dir() else ""
    return [("ensemble", f"{count} members, seeds {config.seed} to {config.seed + count - 1}{where}")]


def print_members(records: Sequence[Record], console: Console) -> None:
    """Print each member's values in the last record that has some; nothing of one model."""
    last = next((record[MEMBERS] for record in reversed(records) if record.get(MEMBERS)), None)
    if last is None:
        return
    count = len(next(iter(last.values())))
    rows = [
        [member_name(number, count), *(_of_member(name, each[number]) for name, each in last.items())]
        for number in range(min(count, MOST))
    ]
    print_lines(console, ["members in the last record, of which the others are means:"])
    print_table(console, ["member", *(name.replace("_", " ") for name in last)], rows)
    print_lines(console, [f"... and {count - MOST} more in metrics.jsonl"] if count > MOST else [])


def _of_member(name: str, value: float | None) -> str:
    return "stopped" if value is None else cell(name, value)


def cell(name: str, value: Any) -> str:
    """A value as other screens have it: a metric with four decimals, a learning rate with as many as it needs."""
    return exact(value) if name.startswith(PREFIXES) else format_value(value)
