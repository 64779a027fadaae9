"""The end of a sweep: `sweep.csv`, the figure, and the table of members from the best to the worst."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from functrain.app.runs.plain_table import table
from functrain.app.sweeps.board import number
from functrain.app.sweeps.figure import draw
from functrain.app.sweeps.plan import Member, settings, write_whole
from functrain.app.sweeps.results import Result, csv_text, ranked, result
from functrain.app.sweeps.workers import LOGS, seconds_of
from functrain.foundation.paths import shown_path

CSV, FIGURE = "sweep.csv", "sweep.png"
MOST_ROWS = 30


def write_csv(folder: Path, members: Sequence[Member], statuses: Mapping[str, str]) -> dict[str, Result]:
    """Write the table of all members; returns their results.

    Raises:
        OSError: it cannot be written.
    """
    results = {member.name: result(member, folder) for member in members}
    write_whole(folder / CSV, csv_text(members, statuses, results))
    return results


def conclude(console: Console, folder: Path, members: Sequence[Member], statuses: Mapping[str, str]) -> None:
    """Write table and figure, and print what there is to know.

    Raises:
        OSError: a file cannot be written.
    """
    results = write_csv(folder, members, statuses)
    order = ranked(members, results)
    took = seconds_of(folder)
    rows = [_row(member, statuses[member.name], results[member.name], took) for member in order[:MOST_ROWS]]
    metric = next((found.metric for found in results.values() if found.metric), "metric")
    _print(
        console, table(["member", "overrides", "status", f"best {metric}", "last", "epochs", "seconds"], rows, left=3)
    )
    if len(order) > MOST_ROWS:
        _print(console, [f"... and {len(order) - MOST_ROWS} more in {CSV}"])
    best = order[0]
    if results[best.name].best is None:
        _print(console, [f"no member has a value of the watched metric; the logs are in {shown_path(folder / LOGS)}"])
        return
    where = f"epoch {results[best.name].best_epoch}"
    value = f"{metric} {number(results[best.name].best)} at {where}"
    _print(console, ["", f"best: {' '.join(best.point)} ({value})", f"      {shown_path(folder / best.name)}"])
    _print(console, [f"written: {shown_path(folder / CSV)}", *_figure(folder, members, statuses, results, best)])


def _row(member: Member, status: str, found: Result, took: Mapping[str, float]) -> list[str]:
    seconds = f"{took[member.name]:.0f}" if member.name in took else ""
    return [
        member.id,
        " ".join(member.point),
        status,
        number(found.best),
        number(found.last),
        str(found.epochs),
        seconds,
    ]


def _figure(
    folder: Path, members: Sequence[Member], statuses: Mapping[str, str], results: Mapping[str, Result], best: Member
) -> list[str]:
    if not settings(best):
        return []
    try:
        draw(members, statuses, results, best, folder / FIGURE)
    except ModuleNotFoundError:
        return ["no figure: it needs matplotlib (pip install 'functrain[plots]')"]
    return [f"written: {shown_path(folder / FIGURE)}"]


def _print(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
