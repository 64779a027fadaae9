"""The files of a run's log: lines that are appended although a disk is full, read back, and mended if damaged.

A checkpoint knows the log that belongs to it by a `LogMark`. `recover` compares `metrics.jsonl` with it. A log that is
damaged comes back from `metrics.csv`, which holds the same numbers, where the checksum confirms every bit; else only
the records of epochs come back, of which the checkpoint holds a copy.
"""

import csv
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from functrain.foundation.errors import FunctrainError
from functrain.loop.output.progress_line import counted

JSON, CSV = "metrics.jsonl", "metrics.csv"
MEMBERS = "members"  # in a record of a stack: name -> the value of each member
DIGEST = "digest"  # of the state, in a record

Record = dict[str, Any]


class LogWarning(UserWarning):
    """The log was mended, or a part of it cannot be written."""


class DamagedLogError(FunctrainError):
    """The log is not what was written, and nothing is left to mend it from."""


@dataclass(frozen=True)
class LogMark:
    """What a checkpoint knows of the log.

    Attributes:
        sha256: of the lines that belong to the checkpoint; "" in checkpoints of earlier versions.
        epochs: the newest of those lines that are no single step's, one after another.
        unwritten: the last of those lines, as far as they could not be written into the file.
    """

    sha256: str = ""
    epochs: str = ""
    unwritten: str = ""


NO_MARK = LogMark()


class Recovered(NamedTuple):
    """The records of a log.

    Attributes:
        records: they.
        fault: what is wrong with the file; "" if it is intact.
        mended: what was done.
    """

    records: list[Record]
    fault: str = ""
    mended: str = ""


class AppendedFile:
    """A file to which bytes are appended. What cannot be written waits in memory, and is tried again with the next.

    Attributes:
        path: the file's.
        pending: what waits.
        error: why, the last time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending = bytearray()
        self.error: OSError | None = None
        self._cut: int | None = None  # the file ends here; what is behind is an unfinished write's

    def append(self, data: bytes) -> None:
        """Hand the bytes to the operating system, where they outlive this process."""
        self.pending += data
        self.flush()

    def flush(self) -> None:
        """Try to write what waits."""
        if not self.pending:
            return
        written = 0
        try:
            with self.path.open("ab", buffering=0) as file, memoryview(self.pending) as data:
                if self._cut is not None:
                    file.truncate(self._cut)
                self._cut = file.seek(0, os.SEEK_END)
                while written < len(data):  # a disk that gets full takes a part
                    written += file.write(data[written:])
        except OSError as error:
            self.error = error
        else:
            self.pending, self.error, self._cut = bytearray(), None, None


def recover(directory: Path, keep: int, mark: LogMark) -> Recovered:
    """The first `keep` records of the log in a directory, mended if need be. No file is changed.

    Raises:
        DamagedLogError: the log is damaged and cannot be mended.
    """
    if keep == 0:
        return Recovered([])
    lines, problem = _complete_lines(directory / JSON)
    unwritten = mark.unwritten.encode().splitlines(keepends=True)
    for candidate in (lines[:keep], lines[: keep - len(unwritten)] + unwritten):
        if len(candidate) == keep and mark.sha256 in ("", sha256(candidate)):
            try:
                return Recovered([_parse(line, number) for number, line in enumerate(candidate, 1)])
            except ValueError:
                pass
    table = _table(directory / CSV)[:keep]
    fault = problem or _fault(lines[:keep], table, keep)
    if len(table) == keep and _confirmed(table, lines, mark):
        return Recovered(table, fault, f"it was rebuilt from {CSV}")
    if mark.epochs:
        epochs = [json.loads(line) for line in mark.epochs.splitlines()]
        return Recovered(
            epochs, fault, f"only the records of {counted(len(epochs), 'epoch')} were rebuilt, from the checkpoint"
        )
    raise DamagedLogError(
        f"{directory / JSON} is damaged: {fault}. Put back the file as it was, or start in a new run directory"
    )


def read_records(path: Path) -> list[Record]:
    """The records of a JSON Lines file; an unfinished last line (a kill while writing) is left out.

    Raises:
        DamagedLogError: a line is no record; the message names it.
    """
    lines, problem = _complete_lines(path) if path.exists() else ([], "")
    try:
        if problem:
            raise ValueError(problem)
        return [_parse(line, number) for number, line in enumerate(lines, 1)]
    except ValueError as error:
        raise DamagedLogError(f"{path} is damaged: {error}") from None


def readable_records(directory: Path) -> Recovered:
    """The records in a directory for looking at: without the lines of a damaged log that cannot be read."""
    path = directory / JSON
    try:
        return Recovered(read_records(path))
    except DamagedLogError as error:
        lines, _ = _complete_lines(path)
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(_parse(line, number))
            except ValueError:
                continue
        table = _table(directory / CSV)
        if len(table) >= len(lines):
            return Recovered(table, str(error), f"{CSV} is shown instead")
        left_out = len(lines) - len(records)
        return Recovered(records, str(error), f"{counted(left_out, 'line')} left out")


def sha256(lines: Iterable[bytes]) -> str:
    """The checksum of lines, in hexadecimal digits."""
    return hashlib.sha256(b"".join(lines)).hexdigest()


def columns_of(record: Mapping[str, Any]) -> list[str]:
    """What the table has of a record: all but the values of each member of a stack."""
    return [name for name in record if name != MEMBERS]


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record's line in the JSON Lines file."""
    return json.dumps(record).encode() + b"\n"


def csv_lines(records: Iterable[Mapping[str, Any]], columns: list[str]) -> bytes:
    """The records' lines in the table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writerows(records)
    return text.getvalue().encode()


def _complete_lines(path: Path) -> tuple[list[bytes], str]:
    """The lines of a file with their ends, without an unfinished last one; and why it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return [], "it is not a regular file"
        return _split(path.read_bytes()), ""
    except FileNotFoundError:
        return [], "it is missing"
    except OSError as error:
        return [], f"it cannot be read ({error.strerror})"


def _split(content: bytes) -> list[bytes]:
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def _parse(line: bytes, number: int) -> Record:
    """A line's record.

    Raises:
        ValueError: it holds none.
    """
    try:
        record = json.loads(line)
    except UnicodeDecodeError:
        raise ValueError(f"line {number} is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError(f"line {number} is not JSON") from None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        raise ValueError(f"line {number} is not a record")
    if not all(type(record.get(name)) is int for name in ("epoch", "step")):
        raise ValueError(f"line {number} is not a record")
    return record


def _fault(lines: list[bytes], table: list[Record], keep: int) -> str:
    """What is wrong with lines that are not those that were written."""
    for number, line in enumerate(lines, 1):
        try:
            record = _parse(line, number)
        except ValueError as error:
            return str(error)
        if number <= len(table) and line_of(record) != line_of(table[number - 1]):
            return f"line {number} differs from {CSV}"
    if len(lines) < keep:
        return f"it holds {counted(len(lines), 'record')}, but the checkpoint was saved after {keep}"
    return "it does not have the checksum that the checkpoint holds"


def _table(path: Path) -> list[Record]:
    """The records of the table, as far as they can be read; empty cells are no values."""
    lines, _ = _complete_lines(path)
    records: list[Record] = []
    try:
        columns, *rows = csv.reader(io.StringIO(b"".join(lines).decode(), newline=""), strict=True)
        for number, row in enumerate(rows, 1):
            if len(row) != len(columns):
                break
            record = {name: _value(name, cell) for name, cell in zip(columns, row) if cell}
            if DIGEST in record:  # the last in its line, wherever its column stands
                record[DIGEST] = record.pop(DIGEST)
            records.append(_parse(line_of(record), number))
    except (ValueError, csv.Error):
        pass
    return records


def _value(name: str, cell: str) -> Any:
    """A cell's value, as it was before it was written."""
    if name in ("kind", DIGEST):
        return cell
    return int(cell) if cell.removeprefix("-").isdecimal() else float(cell)


def _confirmed(table: list[Record], lines: list[bytes], mark: LogMark) -> bool:
    """Whether the table is the log that was written."""
    if mark.sha256:
        return sha256(map(line_of, table)) == mark.sha256
    # Without a checksum: whatever of the other file can be read must say the same.
    for number, line in enumerate(lines[: len(table)], 1):
        try:
            if line_of(_parse(line, number)) != line_of(table[number - 1]):
                return False
        except ValueError:
            continue
    return True
