"""The processes of a launcher: their environment, their output and what became of them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from functrain.app.launching.reports import FOLDER, RANK, Report, has_joined, read_report

STORE = "FUNCTRAIN_STORE"  # the variable with the file through which the ranks find each other
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def environment(rank: int, processes: int, folder: Path) -> dict[str, str]:
    """The variables of a rank's process, which are those of torchrun; what the user has set of them stays.

    Args:
        rank: of the process.
        processes: how many there are.
        folder: that launcher and ranks share.
    """
    return {
        "OMP_NUM_THREADS": str(threads_each(processes)),
        # Ranks on one machine need no other interface, and nobody outside it shall reach them.
        "GLOO_SOCKET_IFNAME": _LOOPBACK,
        "NCCL_SOCKET_IFNAME": _LOOPBACK,
        **os.environ,
        RANK: str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        FOLDER: str(folder),
        STORE: str(folder / "store"),
    }


def threads_each(processes: int) -> int:
    """The number of threads that each of so many processes computes with: all have the same, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes)


class Rank:
    """A process that trains.

    The first one writes to the launcher's own output. A line of another one goes to standard error, behind `[rank 1]`.

    Args:
        command: what it runs.
        variables: its environment.
        rank: its number.
        folder: that launcher and ranks share.
        error: where lines of other ranks go.

    Attributes:
        number: its number.
        code: its exit code, or minus the signal that ended it; None while it runs.
    """

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], *, rank: int, folder: Path, error: IO[str]
    ) -> None:
        self.number = rank
        self.code: int | None = None
        self._folder = folder
        output = None if rank == 0 else subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.PIPE,  # its end is the launcher's
            stdout=output,
            stderr=None if rank == 0 else subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C reaches the launcher alone, which hands it on
        )
        self._relay: threading.Thread | None = None
        if self._process.stdout is not None:
            self._relay = threading.Thread(target=_relay, args=(self._process.stdout, rank, error), daemon=True)
            self._relay.start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def report(self) -> Report | None:
        """Why it ended, as it says itself."""
        return read_report(self._folder, self.number)

    @property
    def has_joined(self) -> bool:
        """Whether it has found the others."""
        return has_joined(self._folder, self.number)

    def poll(self) -> bool:
        """Look whether it runs. What it has left running, if a signal has ended it, is ended."""
        if self.code is None:
            self.code = self._process.poll()
            if self.code is not None and self.code < 0:
                self.send_all(signal.SIGKILL)
        return self.code is None

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        if self.code is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End the process at once, if it runs, and those that it has started."""
        if self.poll():
            self.send_all(signal.SIGKILL)
            self.code = self._process.wait()

    def send_all(self, number: int) -> None:
        """Send a signal to the process, and to those that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def is_stopped(self) -> bool:
        """Whether the system has stopped it, as SIGSTOP or a debugger does; False where that cannot be told."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return text.rpartition(")")[2].split()[0] in ("T", "t")

    def drain(self, seconds: float) -> None:
        """Wait until what it has said is written, or a process that it left behind holds its output open."""
        if self._relay is not None:
            self._relay.join(seconds)
        if self._process.stdin is not None:
            self._process.stdin.close()


def _relay(stream: IO[bytes], rank: int, error: IO[str]) -> None:
    """Write each line with the rank's number before it."""
    with stream:
        for line in stream:
            text = line.decode(errors="replace").rstrip("\r\n")
            with suppress(OSError, ValueError):
                error.write(f"[rank {rank}] {text}\n")
                error.flush()
