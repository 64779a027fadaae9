"""Trackers that get a run's records beside the log files: Weights & Biases, MLflow.

A tracker cannot be cut back as files can. So a resumed run goes on in the same run of the tracker, and a record that
this got before the interruption is not sent again: `<tracker>.json` in the run directory says how far it got. After a
resume bit for bit the records are the same, so the tracker holds each once, as of a run that was never interrupted.
A tracker that fails does not end a run: what it could not take waits in memory, and is tried again at each epoch.
"""

import difflib
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from functrain.foundation.errors import FunctrainError
from functrain.loop.output.log_files import LogWarning, Record

FINISHED, INTERRUPTED, FAILED = "finished", "interrupted", "failed"


class TrackerError(FunctrainError):
    """A tracker that was asked for did not start."""


class Sink(Protocol):
    """A run of a tracker.

    Attributes:
        id: the run's there.
        place: where somebody finds it.
    """

    id: str
    place: str

    def log(self, records: Sequence[Record], first: int) -> None:
        """Take records; `first` is how many this run got before.

        Raises:
            Exception: whatever went wrong. The same records come again then.
        """

    def close(self, status: str) -> None:
        """The run has ended: FINISHED, INTERRUPTED or FAILED."""


class SinkRun(NamedTuple):
    """What a tracker is told of a run.

    Attributes:
        directory: the run's.
        id: of the tracker's run that it goes on with; None for a new one.
        config: the hyperparameters.
    """

    directory: Path
    id: str | None
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Tracker:
    """A kind of tracker.

    Attributes:
        name: of the setting.
        title: for people.
        package: that Python imports.
        options: a dataclass of its options.
        open: starts a run, or goes on with one.
    """

    name: str
    title: str
    package: str
    options: type
    open: Callable[[Any, SinkRun], Sink]

    def asked(self, setting: Any) -> Any:
        """The options that a setting asks for; None if it asks for nothing.

        Raises:
            ValueError, TypeError: for options that are not allowed.
            ModuleNotFoundError: the package is not installed.
        """
        if setting is None or setting is False:
            return None
        given = {} if setting is True else dict(setting)
        known = [each.name for each in fields(self.options)]
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{self.name} has no option {key!r}{hint} It has: {', '.join(known)}")
        for each in fields(self.options):
            if given.get(each.name) is not None:
                each.metadata["kind"].check(f"{self.name}.{each.name}", given[each.name])
        if importlib.util.find_spec(self.package) is None:
            raise ModuleNotFoundError(
                f"{self.name} needs {self.title}, which is not installed. Run: pip install 'functrain[{self.name}]'"
            )
        return self.options(**given)


class FedSink:
    """A tracker, and how far it has got.

    Args:
        tracker: its kind.
        options: as `Tracker.asked` gives them.
        directory: the run's.
        config: the run's hyperparameters.
        records: those of the log that belong to the state at hand; the tracker gets what it does not have.

    Raises:
        TrackerError: it does not start.
    """

    def __init__(
        self, tracker: Tracker, options: Any, directory: Path, config: Mapping[str, Any], records: Sequence[Record]
    ) -> None:
        self._tracker = tracker
        self._file = directory / f"{tracker.name}.json"
        known = _read(self._file)
        try:
            self._sink = tracker.open(options, SinkRun(directory, known.get("id"), config))
        except Exception as error:
            raise TrackerError(f"{tracker.title} did not start: {error}") from error
        is_new = known.get("id") != self._sink.id
        self._sent: int = 0 if is_new else known["sent"]
        self._last: list[int] = [-1, 0] if is_new else known["last"]
        self._pending: list[Record] = []
        self._failed = self._has_warned = False
        if is_new:
            self._try(self._remember)
        for record in records:
            self._queue(record)
        self._send()

    @property
    def place(self) -> str:
        """Where somebody finds it, for people."""
        return f"{self._tracker.title}: {self._sink.place}"

    def append(self, record: Record) -> None:
        """Send a record, unless the tracker has it."""
        self._queue(record)
        if not self._failed or record["kind"] != "step":  # a tracker out of reach may take its time to say so
            self._send()

    def close(self, status: str) -> None:
        """Send what waits, and end the run there."""
        self._send()
        missing = len(self._pending)
        try:
            self._sink.close(status)
        except Exception as error:
            self._warn(f"{self._tracker.title} did not close: {error}")
        if missing:
            self._warn(f"{self._tracker.title} lacks the last {missing} records; the log files have them")

    def _queue(self, record: Record) -> None:
        if _place(record) > self._last and (not self._pending or _place(record) > _place(self._pending[-1])):
            self._pending.append(record)

    def _send(self) -> None:
        if self._pending:
            self._try(self._log)

    def _log(self) -> None:
        self._sink.log(self._pending, self._sent)
        self._sent, self._last = self._sent + len(self._pending), _place(self._pending[-1])
        self._pending = []
        self._remember()

    def _remember(self) -> None:
        """Write down how far the tracker has got."""
        temporary = self._file.with_name(f".{self._file.name}.tmp")
        temporary.write_text(json.dumps({"id": self._sink.id, "sent": self._sent, "last": self._last}))
        os.replace(temporary, self._file)

    def _try(self, action: Callable[[], None]) -> None:
        """Do what may fail without an end of the run."""
        try:
            action()
            self._failed = False
        except Exception as error:
            self._failed = True
            if not self._has_warned:
                self._has_warned = True
                self._warn(
                    f"{self._tracker.title} took no record ({_first_line(error)}): training goes on. What is missing "
                    "is kept in memory, and tried again at each epoch"
                )

    def _warn(self, text: str) -> None:
        warnings.warn(text, LogWarning, stacklevel=4)


def _place(record: Record) -> list[int]:
    """Where a record stands among those of a run."""
    return [record["step"], int(record["kind"] != "step")]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _read(path: Path) -> dict[str, Any]:
    """What a file says; nothing, if it is damaged: then a new run begins, and gets the whole log."""
    try:
        found = json.loads(path.read_bytes())
        intact = isinstance(found["id"], str) and isinstance(found["sent"], int)
        return found if intact and [type(each) for each in found["last"]] == [int, int] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
