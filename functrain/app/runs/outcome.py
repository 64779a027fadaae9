"""How a run ended: `status.json` in its directory, which `functrain runs` reads. It imports no torch."""

import json
import os
from contextlib import suppress
from pathlib import Path

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
    temporary = run / f".{FILE}.tmp"
    with suppress(OSError):
        temporary.write_text(json.dumps({"status": status, "watch": watch, "detail": detail[:LONGEST]}) + "\n")
        os.replace(temporary, run / FILE)
