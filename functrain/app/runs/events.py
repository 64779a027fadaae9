"""What a run does, for programs: a JSON object a line on standard output, and nothing else there."""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from functrain.app.plain_json import finite
from functrain.checkpoint import CheckpointInfo
from functrain.loop.output.progress import Display


class Events(Display):
    """Prints events. Numbers that are not finite, which JSON does not have, become null.

    Args:
        stream: where to; None prints nothing.

    Example:
        >>> Events(sys.stdout).tell("epoch", loss=float("nan"), step=3)
        {"event": "epoch", "loss": null, "step": 3}
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()  # checkpoints are told of by the thread that writes them

    def tell(self, event: str, **values: Any) -> None:
        """Print an event."""
        if self._stream is None or self._gone:
            return
        line = json.dumps(finite({"event": event, **values}))
        with self._lock, self._writing():
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """A record of the log."""
        self.tell("epoch", **record)

    def checkpoint(self, info: CheckpointInfo) -> None:
        """A checkpoint is on disk."""
        self.tell(
            "checkpoint", name=info.name, path=str(info.path), step=info.step, status=info.status, metric=info.metric
        )

    def say(self, text: str) -> None:
        """A line for people."""
        self.tell("message", text=text)


@contextlib.contextmanager
def events(*, quiet: bool) -> Iterator[Events]:
    """Events on standard output, whose other users are sent to standard error within.

    Args:
        quiet: print nothing, on a rank that is not the first.

    Raises:
        Exception: that ended the run, after an event `error`.
    """
    found = Events(None if quiet else sys.stdout)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield found
        except Exception as error:
            found.tell("error", kind=type(error).__name__, message=str(error))
            raise
