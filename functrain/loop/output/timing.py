"""How long the training of each epoch took: a small file beside the log.

The log itself holds nothing that depends on the clock, so that an interrupted run's log equals an uninterrupted one's.
"""

import csv
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FILE = "timing.csv"
LARGEST = 100_000_000  # bytes


class Timing(NamedTuple):
    """The time that training took, evaluations and saves not counted.

    Attributes:
        epoch: the epoch's number.
        step: updates at its end.
        examples: trained on in this time; less than an epoch's if the run was interrupted within it.
        seconds: how long.
    """

    epoch: int
    step: int
    examples: int
    seconds: float


class EpochClock:
    """Times epochs, and writes down how long they took.

    Args:
        directory: of the run; None: nothing is written.
        step: where the run begins or goes on; what was written of later steps is removed.
    """

    def __init__(self, directory: Path | None, step: int) -> None:
        self._path = None if directory is None else directory / FILE
        self._began: tuple[float, int] | None = None
        if self._path is not None and self._path.exists():
            found = read_timings(self._path.parent)
            kept = [timing for timing in found if timing.step <= step]
            if kept != found:
                self._write(_lines(kept))

    def start(self, samples: int) -> None:
        """The training of an epoch begins, or goes on, after so many examples."""
        self._began = (time.perf_counter(), samples)

    def stop(self, epoch: int, step: int, samples: int) -> None:
        """It is at its end."""
        if self._began is None or self._path is None:
            return
        began, before = self._began
        self._began = None
        timing = Timing(epoch, step, samples - before, time.perf_counter() - began)
        if timing.examples > 0:
            self._write(_lines([timing], header=not self._path.exists()), append=True)

    def _write(self, text: str, *, append: bool = False) -> None:
        """Write, or leave it: a time is not worth ending a run for, and a full disk is told of by the log."""
        assert self._path is not None
        try:
            if append:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(text)
                return
            temporary = self._path.with_name(f".{FILE}.tmp")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self._path)
        except OSError:
            return


def read_timings(directory: str | os.PathLike[str]) -> list[Timing]:
    """The times in a run's directory; what cannot be read is left out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, FILE).write_text("epoch,step,examples,seconds\\n1,10,640,2.5\\n2,20,64")
        ...     read_timings(folder)
        [Timing(epoch=1, step=10, examples=640, seconds=2.5)]
    """
    path, found = Path(directory) / FILE, []
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return []
        rows = list(csv.reader(path.read_text(encoding="utf-8", errors="replace").splitlines()))
    except (OSError, csv.Error):
        return []
    for row in rows:
        try:
            epoch, step, examples, seconds = row
            found.append(Timing(int(epoch), int(step), int(examples), float(seconds)))
        except ValueError:
            continue  # the header, or half a line of a killed run
    return found


def _lines(timings: Iterable[Timing], *, header: bool = True) -> str:
    rows = [",".join(Timing._fields)] if header else []
    rows += [f"{t.epoch},{t.step},{t.examples},{t.seconds:.6f}" for t in timings]
    return "".join(f"{row}\n" for row in rows)
