"""Starts the contestants, gives them their turns, collects their times. Imports the standard library.

All contestants of a network are alive at once, each in a process of its own, and take turns round by round, so that
what the machine does besides falls on all alike.
"""

import importlib.util
import os
import pty
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from benchmarks.peers.contestant import ALL

REST = 0.3  # seconds between turns: threads of the one before go to sleep


class Contestant:
    """A process at work, on a terminal of its own: a progress display is drawn as for a person."""

    def __init__(
        self, network: str, way: str, rounds: int, steps: int, *, environment: Mapping[str, str] | None = None
    ) -> None:
        ours, theirs = pty.openpty()
        module = ["-W", "ignore", "-m", "benchmarks.peers.contestant"]
        command = [sys.executable, *module, network, way, str(rounds), str(steps)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs, text=True, bufsize=1, env=environment
        )
        os.close(theirs)
        self._said: deque[bytes] = deque(maxlen=64)
        self._listener = threading.Thread(target=self._listen, args=(ours,), daemon=True)
        self._listener.start()

    def _listen(self, terminal: int) -> None:
        try:
            while data := os.read(terminal, 4096):
                self._said.append(data)
        except OSError:  # its end
            os.close(terminal)

    def round(self) -> float:
        """Seconds per step.

        Raises:
            RuntimeError: with the end of what it said, if it died.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write("go\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._listener.join(2)
            raise RuntimeError(b"".join(self._said).decode(errors="replace")[-2000:])
        return float(line)

    def close(self) -> None:
        """Wait for its end, or see to it."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()


def installed(way: str) -> bool:
    return importlib.util.find_spec(ALL[way].module) is not None


def compete(
    network: str, ways: Iterable[str], rounds: int, steps: int, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Seconds per step of each way, for each round; the first, which compiles, is not among them.

    A way that fails is left out, and said.
    """
    contestants: dict[str, Contestant] = {}
    times: dict[str, list[float]] = {}
    for way in ways:
        before = time.perf_counter()
        contestants[way] = Contestant(network, way, rounds + 1, steps)
        if _turn(contestants, way, say) is not None:
            times[way] = []
            say(f"{network}: {way} is ready after {time.perf_counter() - before:.0f} s")
    say(f"{network}: {rounds} rounds")
    for _ in range(rounds):
        for way in list(times):
            time.sleep(REST)
            seconds = _turn(contestants, way, say)
            if seconds is None:
                del times[way]
            else:
                times[way].append(seconds)
    for contestant in contestants.values():
        contestant.close()
    return times


def _turn(contestants: dict[str, Contestant], way: str, say: Callable[[str], None]) -> float | None:
    try:
        return contestants[way].round()
    except RuntimeError as error:
        say(f"{way} failed and is left out:\n{error}")
        contestants.pop(way).close()
        return None
