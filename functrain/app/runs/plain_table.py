"""A table as plain lines, for commands that must not wait for rich."""

from collections.abc import Iterable, Sequence

from functrain.foundation.printing import printable


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """A table whose first `left` columns are text, and the others numbers.

    Example:
        >>> print("\\n".join(table(["name", "step"], [["a", "10"], ["bcd", "9"]])))
        name  step
        a       10
        bcd      9
    """
    cells = [list(columns), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in cells
    ]
