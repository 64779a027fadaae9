"""The rounds of one contestant, which take place when the judge says so. Imports the standard library.

A contestant is a process that trains one network in one way. Its loop, or a hook in its framework's loop, calls
`begin` before the first step of an epoch, which waits for a line on standard input, and `end` after the last.
"""

import sys
import time


class Clock:
    """Seconds per step of each round, written to standard output, a line each."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._started: float | None = None
        self._out = sys.stdout
        sys.stdout = sys.stderr  # what a framework prints is no result

    def begin(self) -> None:
        """Wait for the judge, then start. Ends the process when there are no more rounds."""
        if not sys.stdin.readline():
            raise SystemExit(0)
        self._started = time.perf_counter()

    def end(self) -> None:
        """Stop, and say how long it took."""
        assert self._started is not None, "end without begin"
        print((time.perf_counter() - self._started) / self._steps, file=self._out, flush=True)
        self._started = None
