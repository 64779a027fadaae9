"""What the commands print: tables and numbers for people."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from functrain.foundation.printing import printable
from functrain.loop.output.progress_line import exact

UNBOUNDED = 100_000  # characters in a line
BETWEEN_COLUMNS = 2  # characters
CLASS = "class"  # in the names of numbers of single classes, such as "f1/class/3"
LEAST_OF_NAMES = 8  # characters of a name in a line, where a table must be narrow


def print_facts(console: Console, title: str, facts: Iterable[tuple[str, str]]) -> None:
    """A title, and below it two columns: what, and its value."""
    console.print(Text(printable(title), style="bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(Text(printable(f"  {name}")), Text(printable(value)))
    _print_trimmed(console, grid)


def print_table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """A table whose first `left` columns are text, and the others numbers.

    Nothing of it is cut off: on a terminal, and where COLUMNS is set, the column of the longest texts is wrapped
    (names before numbers are not); elsewhere nothing is.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    rows = [list(row) for row in rows]
    texts = range(left if left > 1 else 0)  # a table's only text column is its rows' names
    longest = max(texts, key=lambda index: max((len(row[index]) for row in rows), default=0), default=None)
    least = 0
    for index, column in enumerate(columns):
        cells, no_wrap = [row[index] for row in rows], index < left and index != longest
        words = [column] if no_wrap else column.split()
        width = LEAST_OF_NAMES if index == longest else max(map(len, [*words, *cells]), default=0)
        justify: Literal["left", "right"] = "left" if index < left else "right"
        table.add_column(Text(column), justify=justify, no_wrap=no_wrap, min_width=width, overflow="fold")
        least += width + BETWEEN_COLUMNS
    for row in rows:
        table.add_row(*[Text(printable(cell)) for cell in row])
    _print_trimmed(console, table, least)


def _print_trimmed(console: Console, renderable: RenderableType, least: int = 0) -> None:
    """Print without the blanks with which rich fills lines; where nobody says how wide these may be, as they are.

    Args:
        console: where to.
        renderable: what.
        least: on a narrower terminal it is printed as it is, too, since rich would leave numbers out.
    """
    options = console.options
    if (not console.is_terminal and "COLUMNS" not in os.environ) or least >= options.max_width:
        unbounded = options.update(max_width=UNBOUNDED)
        options = options.update(max_width=Measurement.get(console, unbounded, renderable).maximum)
    for line in console.render_lines(renderable, options, pad=False):
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            line[-1] = line[-1]._replace(text=line[-1].text.rstrip())
        console.print(Segments([*line, Segment.line()]), soft_wrap=True, end="")


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Text as it is, not interpreted; on a terminal wrapped between words, elsewhere not at all."""
    for line in lines:
        console.print(Text(printable(line)), soft_wrap=not console.is_terminal)


def print_metrics(console: Console, rows: Mapping[str, Mapping[str, float]]) -> None:
    """A row for each set of metrics, a column for each metric; nothing for an empty table.

    Numbers of single classes are in a table of their own, with a row for each class.
    """
    found = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    names = [name for name in found if "/" not in name]
    if not names:
        return
    cells = [
        [label, *[exact(metrics[name]) if name in metrics else "" for name in names]] for label, metrics in rows.items()
    ]
    print_table(console, ["", *names], cells)
    _print_classes(console, rows, [name for name in found if f"/{CLASS}/" in name])


def _print_classes(console: Console, rows: Mapping[str, Mapping[str, float]], found: Sequence[str]) -> None:
    """Names such as "f1/class/3": a row for each class, a column for each set of metrics and each metric."""
    parts = [name.rpartition(f"/{CLASS}/") for name in found]
    columns = [
        (label, metric)
        for metric in dict.fromkeys(metric for metric, _, _ in parts)
        for label, metrics in rows.items()
        if any(name.startswith(f"{metric}/{CLASS}/") for name in metrics)
    ]
    cells = [
        [number, *[exact(rows[label].get(f"{metric}/{CLASS}/{number}", float("nan"))) for label, metric in columns]]
        for number in dict.fromkeys(number for _, _, number in parts)
    ]
    if cells:
        print_table(console, [CLASS, *(f"{label} {metric}" for label, metric in columns)], cells)


def wrapped_command(title: str, arguments: Sequence[str], width: int | None) -> str:
    """A command to be pasted; broken between arguments, as shells allow, where a terminal would break it anywhere.

    Example:
        >>> print(wrapped_command("To continue: ", ["functrain", "train", "my runs.yaml", "--run-dir", "r"], 42))
        To continue: functrain train \\
            'my runs.yaml' --run-dir r
    """
    lines = [title]
    for number, argument in enumerate(arguments):
        word = shlex.quote(argument)
        if number and width is not None and len(f"{lines[-1]} {word} \\") > width:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}" if number else word
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time span.

    Example:
        >>> duration(7.42), duration(100), duration(4000)
        ('7.4 s', '1 min 40 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
