"""Tables in CSV and Parquet files as columns of cells."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from functrain.foundation.errors import DataError

Cell = str | float | int | bool | None
Columns = dict[str, list[Cell]]

ROWS = 4096  # that are read at a time
SUFFIXES = (".csv", ".parquet")


def read_columns(path: str | Path, *, delimiter: str = ",") -> Columns:
    """All cells of a table, by column.

    Args:
        path: `.csv`, with a header, or `.parquet` (read with pyarrow).
        delimiter: between the cells of a CSV file.

    Returns:
        The columns in their order. Cells of a CSV file are text; an empty cell of a Parquet file is None.

    Raises:
        DataError: if the file cannot be read, or is no table; the line is named.
        ModuleNotFoundError: for a `.parquet` file without pyarrow.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "table.csv").write_text("age,town\\n31,Bonn\\n,Rome\\n")
        ...     read_columns(f"{folder}/table.csv")
        {'age': ['31', ''], 'town': ['Bonn', 'Rome']}
    """
    found: Columns = {}
    for piece in column_pieces(path, delimiter=delimiter):
        for name, cells in piece.items():
            found.setdefault(name, []).extend(cells)
    if not any(found.values()):
        raise DataError(f"{path} has a header and no rows")
    return found


def column_pieces(path: str | Path, *, delimiter: str = ",") -> Iterator[Columns]:
    """As `read_columns`, some rows at a time."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"tables are read from {' and '.join(SUFFIXES)} files; got {path}")
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    return _parquet_pieces(path) if path.suffix.lower() == ".parquet" else _csv_pieces(path, delimiter)


def _csv_pieces(path: Path, delimiter: str) -> Iterator[Columns]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            header = _checked_header(path, next(lines, []), delimiter)
            rows: list[list[str]] = []
            for row in lines:
                if not row:
                    continue  # an empty line
                if len(row) != len(header):
                    raise DataError(
                        f"line {lines.line_num} of {path} has {len(row)} cells, the header has {len(header)}: "
                        f"{delimiter.join(row)[:80]!r}"
                    )
                rows.append(row)
                if len(rows) == ROWS:
                    yield _turned(header, rows)
                    rows = []
            yield _turned(header, rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error


def _turned(header: Sequence[str], rows: list[list[str]]) -> Columns:
    columns = zip(*rows) if rows else ([] for _ in header)
    return {name: list(cells) for name, cells in zip(header, columns, strict=True)}


def _checked_header(path: Path, header: list[str], delimiter: str) -> list[str]:
    names = [name.strip() for name in header]
    if not names:
        raise DataError(f"{path} is empty; the first line of a table names its columns")
    twice = [name for name in names if names.count(name) > 1]
    if twice or "" in names:
        what = f"has two columns {twice[0]!r}" if twice and twice[0] else "has a column without a name"
        raise DataError(f"{path} {what}; the first line names the columns, each with another name")
    other = next((mark for mark in ";\t|," if mark != delimiter and mark in names[0]), None)
    if len(names) == 1 and other is not None:
        raise DataError(
            f"{path} has the one column {names[0][:80]!r}: its delimiter may be {other!r}, delimiter={other!r}"
        )
    return names


def _parquet_pieces(path: Path) -> Iterator[Columns]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "parquet files are read with pyarrow, which is not installed. Run: pip install pyarrow"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            names = _checked_header(path, list(file.schema_arrow.names), ",")
            for piece in file.iter_batches(ROWS):
                columns = (column.to_pylist() for column in piece.columns)
                yield {name: [_plain(cell) for cell in cells] for name, cells in zip(names, columns, strict=True)}
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {error}") from error


def _plain(cell: object) -> Cell:
    return cell if cell is None or isinstance(cell, (str, float, int, bool)) else str(cell)
