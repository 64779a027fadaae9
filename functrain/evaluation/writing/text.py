"""A report as plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

from functrain.evaluation.reports import Report
from functrain.evaluation.writing.cells import text_of


def report_text(report: Report, about: Mapping[str, Any]) -> str:
    """The numbers and tables of a report in columns.

    Args:
        report: what was found.
        about: what was evaluated: name -> value.
    """
    width = max(map(len, about), default=0)
    lines = [f"{name:<{width}}  {text_of(value)}" for name, value in about.items()]
    numbers = [[number.name, text_of(number.value), text_of(number.interval)] for number in report.numbers]
    lines += ["", *columns(["metric", "value", "95 % interval"], numbers)]
    for table in report.tables:
        lines += ["", table.title, "", *columns(table.header, [list(map(text_of, row)) for row in table.rows])]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """The lines of a table whose first `left` columns are text, and the others numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        for row in (header, *rows)
    ]
