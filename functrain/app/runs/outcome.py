"""How a run ended: `status.json` in its directory, which `functrain runs` reads. It imports no torch."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

FILE = "status.json"
RUNNING, FINISHED, INTERRUPTED, FAILED, STOPPED = "running", "finished", "interrupted", "failed", "stopped"
LONGEST = 500  # characters of a detail


def write_outcome(run: Path, status: str, watch: str | None, detail: str = "") -> None:
    """Write the file. A disk that is full must not hide what the run itself has to say, so no error is raised.

    Args:
        run: the run's directory.
        status: one of the words above. One that says RUNNING without a lock was killed.
        watch: the metric that decides which checkpoint is the best.
        detail: why, such as the first line of an error.
    """
    _write(run, {"status": status, "watch": watch, "detail": detail[:LONGEST]})


def conclude_outcome(run: Path) -> None:
    """Add that the run's results are written, too: the test, the figure, the model card."""
    if known := read_outcome(run):
        _write(run, {**known, "concluded": True})


def pause_outcome(run: Path) -> None:
    """Add that the run shall be continued: it was stopped by `--until-epoch`."""
    if known := read_outcome(run):
        _write(run, {**known, "paused": True})


def read_outcome(run: Path) -> dict[str, Any]:
    """What the file says; nothing if there is none, or it cannot be read."""
    try:
        found = json.loads((run / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(run: Path, values: Mapping[str, Any]) -> None:
    temporary = run / f".{FILE}.tmp"
    with suppress(OSError):
        temporary.write_text(json.dumps(values) + "\n")
        os.replace(temporary, run / FILE)
