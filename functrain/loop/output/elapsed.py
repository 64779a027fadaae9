"""A clock on a terminal's last line, for work that says nothing until it is done."""

import threading
import time
from typing import TextIO

from functrain.loop.output.progress_line import GAP, clock

EVERY = 1.0  # seconds


class Elapsed:
    """Counts up from its creation, in a thread of its own: a compilation lets no other code of ours run for minutes.

    It leaves the cursor at the beginning of its line, as the live line does, and at the end nothing.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="elapsed")
        self._thread.start()

    def stop(self) -> None:
        """Erase it. May be called again."""
        if not self._done.is_set():
            self._done.set()
            self._thread.join()
            self._write("")

    def _run(self) -> None:
        start = time.monotonic()
        while not self._done.wait(EVERY):
            self._write(f"{GAP}{clock(time.monotonic() - start)}\r")

    def _write(self, text: str) -> None:
        try:
            self._terminal.write(f"\r\x1b[J{text}")
            self._terminal.flush()
        except (OSError, ValueError):  # nobody looks any more
            self._done.set()
