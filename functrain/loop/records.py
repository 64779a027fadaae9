"""The log of a run, as JSON Lines and as CSV, that can be cut back. Imports foundation and the neighbouring module.

`metrics.jsonl` is the truth: one record a line, appended. `metrics.csv` is the same table for
spreadsheets; a column that appears late (the first evaluation, say) makes it be written anew.
Nothing in a record depends on the clock, so that an interrupted run's files equal an uninterrupted one's.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from functrain.foundation.errors import FunctrainError
from functrain.loop.tensorboard import EventFile

Record = dict[str, Any]


class Records:
    """The run's records: files, if there is a directory. In memory there are those of epochs alone.

    Attributes:
        epochs: the records of epochs, without the steps' in between.

    Args:
        directory: where `metrics.jsonl` and `metrics.csv` are, or None to keep records in memory only.
        keep: how many of the records already there belong to the state at hand; later ones are cut off.
        writes: whether this process keeps the files (one of several does).
        tensorboard: also keep TensorBoard's event file, see `functrain.loop.tensorboard`.

    Raises:
        FunctrainError: if fewer records are there than `keep`.
    """

    def __init__(
        self, directory: Path | None, keep: int = 0, *, writes: bool = True, tensorboard: bool = False
    ) -> None:
        self._writes = writes
        self._json = None if directory is None else directory / "metrics.jsonl"
        self._csv = None if directory is None else directory / "metrics.csv"
        self._count = keep
        self._columns: list[str] = []
        self._events: EventFile | None = None
        self.epochs: list[Record] = []
        if self._json is not None:
            records = read_records(self._json)[:keep]
            if len(records) < keep:
                raise FunctrainError(
                    f"{self._json} holds {len(records)} records, but the checkpoint was saved after {keep}: the log "
                    "has been cut or replaced. Put it back, or start in a new run directory"
                )
            self.epochs = [record for record in records if record["kind"] != "step"]
            if writes:
                _replace(self._json, "".join(json.dumps(record) + "\n" for record in records))
                self._rewrite_csv()
                if tensorboard and directory is not None:
                    self._events = EventFile(directory, records)

    @property
    def keeps_steps(self) -> bool:
        """Whether records of single updates go anywhere: each takes reading its metrics."""
        return self._json is not None

    def __len__(self) -> int:
        """Number of records."""
        return self._count

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record and hand it to the operating system, where it outlives this process."""
        self._count += 1
        if record["kind"] != "step":
            self.epochs.append(dict(record))
        if self._json is None or self._csv is None or not self._writes:
            return
        with self._json.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self._events is not None:
            self._events.append(record)
        if set(record) <= set(self._columns):
            with self._csv.open("a", newline="") as file:
                file.write(_csv_lines([record], self._columns))
        else:
            self._rewrite_csv()

    def _rewrite_csv(self) -> None:
        assert self._json is not None
        assert self._csv is not None
        records = read_records(self._json)
        self._columns = list(dict.fromkeys(key for record in records for key in record))
        header = ",".join(self._columns) + "\n" if self._columns else ""
        _replace(self._csv, header + _csv_lines(records, self._columns))


def read_records(path: Path) -> list[Record]:
    """The records of a JSON Lines file; an unfinished last line (a kill while writing) is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        records.append(json.loads(line))
    return records


def _csv_lines(records: Iterable[Mapping[str, Any]], columns: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writerows(records)
    return text.getvalue()


def _replace(path: Path, text: str) -> None:
    """Write a whole file so that a kill leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
