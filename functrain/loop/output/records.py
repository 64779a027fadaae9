"""The log of a run, as JSON Lines, as CSV and for TensorBoard, that can be cut back.

`metrics.jsonl` is the truth: one record a line, appended. `metrics.csv` is the same table for
spreadsheets; a column that appears late (such as the first evaluation) makes it be written anew.
Nothing in a record depends on the clock, so that an interrupted run's files equal an uninterrupted one's.
A file that cannot be written, on a full disk for example, does not end the run: see `AppendedFile`.
"""

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from functrain.checkpoint import RunLock
from functrain.foundation.errors import FunctrainError
from functrain.loop.output import log_files
from functrain.loop.output.log_files import NO_MARK, AppendedFile, LogMark, LogWarning, Record, line_of, read_records
from functrain.loop.output.sinks import FAILED, FedSink, Tracker
from functrain.loop.output.tensorboard import EventFile

# What a checkpoint holds of the log at most.
MOST_EPOCHS = 1000  # some 300 kB
MOST_UNWRITTEN = 1_000_000  # bytes


class Records:
    """The run's records: files, if there is a directory. In memory there are those of epochs alone.

    Attributes:
        epochs: the records of epochs, without the steps' in between.
        status: how the run ended, for the trackers: FAILED until somebody says something else.

    Args:
        directory: where `metrics.jsonl` and `metrics.csv` are, or None to keep records in memory only.
        keep: how many of the records already there belong to the state at hand; later ones are cut off.
        mark: what the state's checkpoint knows of them.
        writes: whether this process keeps the files (one of several does).
        tensorboard: also keep TensorBoard's event file, see `functrain.loop.output.tensorboard`.
        trackers: that get the records, too, each with its options.
        config: the hyperparameters, for the trackers.
        lock: of the directory, asked before each record whether it is still there.

    Raises:
        DamagedLogError: if the records are damaged and cannot be mended.
        FunctrainError: if the files cannot be written.
    """

    def __init__(
        self,
        directory: Path | None,
        keep: int = 0,
        mark: LogMark = NO_MARK,
        *,
        writes: bool = True,
        tensorboard: bool = False,
        trackers: Sequence[tuple[Tracker, Any]] = (),
        config: Mapping[str, Any] = {},
        lock: RunLock | None = None,
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._writes = writes and directory is not None
        self._count = keep
        self._columns: list[str] = []
        self._table_is_stale = False
        self._has_warned = False
        self._sha256 = hashlib.sha256()
        self._epoch_lines: deque[bytes] = deque(maxlen=MOST_EPOCHS)
        self._files: list[AppendedFile] = []
        self._events: EventFile | None = None
        self._sinks: list[FedSink] = []
        self.status = FAILED
        self.epochs: list[Record] = []
        if directory is None:
            return
        found = log_files.recover(directory, keep, mark)
        self._count = len(found.records)
        self.epochs = [record for record in found.records if record["kind"] != "step"]
        if self._writes:
            try:
                self._set_aside(found)
                self._open(found.records, tensorboard)
            except OSError as error:
                raise FunctrainError(f"the log in {directory} cannot be written: {error}") from error
            for tracker, options in trackers:
                self._sinks.append(FedSink(tracker, options, directory, config, found.records))

    @property
    def places(self) -> list[str]:
        """Where the trackers show the run."""
        return [sink.place for sink in self._sinks]

    @property
    def keeps_steps(self) -> bool:
        """Whether records of single updates go anywhere: each takes reading its metrics."""
        return self._directory is not None

    def __len__(self) -> int:
        """Number of records."""
        return self._count

    def mark(self) -> LogMark:
        """What a checkpoint of this moment shall know of the log."""
        unwritten = self._files[0].pending if self._files else bytearray()
        if len(unwritten) > MOST_UNWRITTEN:
            unwritten = bytearray()
        return LogMark(self._sha256.hexdigest(), b"".join(self._epoch_lines).decode(), unwritten.decode())

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record and hand it to the operating system, where it outlives this process.

        Raises:
            RunLostError: the run directory is gone.
        """
        self._count += 1
        if record["kind"] != "step":
            self.epochs.append(dict(record))
        if not self._writes:
            return
        if self._lock is not None:
            self._lock.check()
        line = line_of(record)
        self._remember(line, record["kind"])
        lines, table, *events = self._files
        lines.append(line)
        if self._events is not None:
            events[0].append(self._events.frame(record))
        if not set(log_files.columns_of(record)) <= set(self._columns):
            self._table_is_stale = True
            self._rewrite_table()
        elif not self._table_is_stale:
            table.append(_csv_lines([record], self._columns))
        elif record["kind"] != "step":  # trying costs reading the whole log
            self._rewrite_table()
        for sink in self._sinks:
            sink.append(dict(record))
        if not self._has_warned and (problems := self._problems()):
            self._has_warned = True
            self._warn(f"{problems[0]}: training goes on. What is missing is kept in memory, and tried again")

    def close(self) -> None:
        """Try a last time to write what could not be written; say what is missing from the files."""
        if not self._writes:
            return
        for sink in self._sinks:
            sink.close(self.status)
        for file in self._files:
            file.flush()
        if self._table_is_stale:
            self._rewrite_table()
        if problems := self._problems():
            self._warn("; ".join(problems) + ": the log is incomplete. The run's result is not touched by that")

    def _open(self, records: list[Record], tensorboard: bool) -> None:
        assert self._directory is not None
        path, lines = self._directory / log_files.JSON, [line_of(record) for record in records]
        for line, record in zip(lines, records):
            self._remember(line, record["kind"])
        self._files = [AppendedFile(path), AppendedFile(self._directory / log_files.CSV)]
        _replace(path, b"".join(lines))
        self._write_table(records)
        if tensorboard:
            self._events = EventFile(self._directory, records)
            self._files.append(AppendedFile(self._events.path))

    def _set_aside(self, found: log_files.Recovered) -> None:
        """Keep a damaged file, and say what was done."""
        if not found.fault:
            return
        assert self._directory is not None
        path = self._directory / log_files.JSON
        kept = ""
        if os.path.lexists(path):
            aside, number = path.with_name(f"{path.name}.damaged"), 2
            while os.path.lexists(aside):
                aside, number = path.with_name(f"{path.name}.damaged-{number}"), number + 1
            path.rename(aside)
            kept = f"; the damaged file is kept as {aside.name}"
        self._warn(f"{path} was damaged ({found.fault}): {found.mended}{kept}")

    def _remember(self, line: bytes, kind: str) -> None:
        self._sha256.update(line)
        if kind != "step":
            self._epoch_lines.append(line)

    def _problems(self) -> list[str]:
        problems = [f"{file.path} cannot be written ({file.error.strerror})" for file in self._files if file.error]
        return problems or [f"{self._files[1].path} cannot be written anew"] * self._table_is_stale

    def _rewrite_table(self) -> None:
        if self._files[0].pending:
            return
        try:
            self._write_table(read_records(self._files[0].path))
        except (OSError, log_files.DamagedLogError):
            return  # said by `_problems`
        self._table_is_stale = False

    def _write_table(self, records: list[Record]) -> None:
        self._columns = list(dict.fromkeys(key for record in records for key in log_files.columns_of(record)))
        header = ",".join(self._columns) + "\n" if self._columns else ""
        _replace(self._files[1].path, header.encode() + _csv_lines(records, self._columns))

    def _warn(self, text: str) -> None:
        warnings.warn(text, LogWarning, stacklevel=3)


def _csv_lines(records: Iterable[Mapping[str, Any]], columns: list[str]) -> bytes:
    return log_files.csv_lines(records, columns)


def _replace(path: Path, content: bytes) -> None:
    """Write a whole file so that a kill leaves the old one or the new one. One that holds this is left alone."""
    if path.is_file() and path.read_bytes() == content:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
