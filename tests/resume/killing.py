"""Start real training processes, kill them, and compare what they leave: for the tests and the table of kills."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from moments import BEGUN, MOMENTS

from functrain.checkpoint import read_arrays, read_info
from functrain.loop.output.records import read_records

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # their imports
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

FOLDER = Path(__file__).parent
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGKILL: -9}
PATIENCE = 1800.0  # seconds without a word, after which a process hangs

Options = Mapping[str, object]


class LostRunError(AssertionError):
    """A killed run did not go on as it must."""


class Training:
    """A training process under way: what it says, and where signals for it go."""

    def __init__(self, source: subprocess.Popen[bytes], errors: Path, *, forked: bool) -> None:
        self._source, self._errors, self._forked = source, errors, forked
        self.code: int | None = None
        self.pid = int(self._line().split()[1]) if forked else source.pid

    def reached(self) -> bool:
        """Wait for the moment that it was aimed at; False if it ended first."""
        return self._line() == "reached"

    def go_on(self) -> None:
        """After `reached`."""
        _write(self._source, b"\n")

    def send(self, number: int, *, group: bool = False) -> None:
        """To the process, or to its group with all its workers and compilers, as a terminal does."""
        (os.killpg if group else os.kill)(self.pid, number)

    def finish(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        while self.code is None:
            self._line()
        return self.code

    def errors(self) -> str:
        return self._errors.read_text(errors="replace") if self._errors.exists() else ""

    def _line(self) -> str:
        if self.code is not None:
            return ""
        line = _read_line(self._source, self._hang)
        if self._forked and line.startswith("ended"):
            self.code = int(line.split()[1])
        elif not self._forked and not line:
            self.code = self._source.wait()
            for pipe in (self._source.stdin, self._source.stdout):
                assert pipe is not None
                pipe.close()
        return line

    def _hang(self) -> None:
        self.send(signal.SIGUSR2)  # it says where it is
        time.sleep(1)
        self.send(signal.SIGKILL, group=True)
        self.code = -9
        raise LostRunError(f"hangs:\n{self.errors()[-8000:]}")


class Parent:
    """A fork server, see there. One training process at a time."""

    def __init__(self, hash_seed: int) -> None:
        self._process = _popen([str(FOLDER / "fork_server.py")], {"PYTHONHASHSEED": str(hash_seed)}, None)
        self._ready = False

    def start(self, run_dir: Path, options: Options, environment: Mapping[str, str] = {}) -> Training:
        if not self._ready:
            assert _read_line(self._process, lambda: None) == "ready"
            self._ready = True
        errors = run_dir.with_name(run_dir.name + ".stderr")
        request = {"arguments": arguments(run_dir, options), "errors": str(errors), "environment": dict(environment)}
        _write(self._process, json.dumps(request).encode() + b"\n")
        return Training(self._process, errors, forked=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


class Fresh:
    """Starts fresh interpreters, which have imported nothing yet."""

    def __init__(self, hash_seed: int) -> None:
        self._environment = {"PYTHONHASHSEED": str(hash_seed)}

    def start(self, run_dir: Path, options: Options, environment: Mapping[str, str] = {}) -> Training:
        errors = run_dir.with_name(run_dir.name + ".stderr")
        command = [str(FOLDER / "training_process.py"), *arguments(run_dir, options)]
        with errors.open("ab") as file:
            process = _popen(command, {**self._environment, **environment}, file, group=True)
        return Training(process, errors, forked=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


Starter = Parent | Fresh


def arguments(run_dir: Path, options: Options) -> list[str]:
    return [str(run_dir), *(f"{key}={json.dumps(value)}" for key, value in options.items())]


def _popen(
    command: list[str], environment: Mapping[str, str], errors: object, *, group: bool = False
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,  # type: ignore[arg-type]
        bufsize=0,
        process_group=0 if group else None,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", **environment},
    )


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)


def _read_line(process: subprocess.Popen[bytes], hangs: object) -> str:
    assert process.stdout is not None
    text = b""
    while not text.endswith(b"\n"):
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            hangs()  # type: ignore[operator]
        byte = process.stdout.read(1)
        if not byte:
            break
        text += byte
    return text.decode().strip()


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        number: the signal.
        moment: what it is aimed at; "" for a random time.
        count: the how manieth time that the process gets there.
        seconds: after it got there and went on; for a random time, after the script has begun.
        group: to the whole process group.
        twice: another signal right after, which ends the process without a snapshot.
    """

    number: signal.Signals
    moment: str
    count: int = 1
    seconds: float = 0.0
    group: bool = False
    twice: bool = False


def kill(parent: Starter, run_dir: Path, options: Options, how: Kill, environment: Mapping[str, str] = {}) -> bool:
    """Start or resume a run and kill it; whether it was at work.

    Raises:
        LostRunError: if it ended with an error, or as the signal does not explain.
    """
    process = parent.start(run_dir, {**options, "aim": f"{how.moment or BEGUN}:{how.count}"}, environment)
    if not process.reached():
        _check(process, process.finish(), {0})
        return False
    if how.seconds or not how.moment:
        process.go_on()
    time.sleep(how.seconds)
    try:
        process.send(how.number, group=how.group)
        if how.twice:
            process.send(signal.SIGINT if how.number == signal.SIGTERM else signal.SIGTERM)
    except ProcessLookupError:
        _check(process, process.finish(), {0})
        return False
    if how.moment and how.number != signal.SIGKILL and not how.seconds:
        process.go_on()
    code = process.finish()
    second = {130, 143, -2, -15} if how.twice else set()
    # Minus the signal: before `fit` has begun, or after it has returned. 0: it was at its very end.
    _check(process, code, {0, CODES[how.number], -how.number, *second})
    return code != 0 or bool(how.moment and not how.seconds)


def _check(process: Training, code: int, allowed: set[int]) -> None:
    if code not in allowed:
        raise LostRunError(f"ended with code {code}, not {sorted(allowed)}:\n{process.errors()[-8000:]}")


def to_the_end(process: Training) -> None:
    """Wait until it ends by itself.

    Raises:
        LostRunError: if it fails.
    """
    _check(process, process.finish(), {0})


def random_kill(dice: random.Random, number: signal.Signals, moment: str, seconds: float, *, group: bool) -> Kill:
    """A kill at a moment, or (if that is "") within so many seconds from the script's beginning."""
    if not moment:
        return Kill(number, "", seconds=dice.uniform(0.0, seconds), group=group)
    return Kill(number, moment, dice.randint(1, MOMENTS[moment]), group=group)


def outcome(run_dir: Path) -> dict[str, object]:
    """Everything a run leaves behind that must not depend on its having been killed.

    Raises:
        LostRunError: if something is not there.
    """
    last, best = (run_dir / "checkpoints" / name for name in ("last", "best"))
    log = (run_dir / "metrics.jsonl").read_text()
    steps = [record["step"] for record in read_records(run_dir / "metrics.jsonl") if record["kind"] == "step"]
    if len(set(steps)) != len(steps):
        raise LostRunError("a step is in the log twice")
    return {
        "state": arrays_of(last),
        "best": arrays_of(best),
        "best metric": read_info(best).metric,
        "log": log,
        "table": (run_dir / "metrics.csv").read_text(),
        "TensorBoard": _events(run_dir),
        "result": (run_dir / "result.json").read_text(),
    }


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """The parts of two outcomes that are not equal."""
    return [part for part in one if one[part] != other[part]]


def _events(run_dir: Path) -> list[tuple[int, str, str]]:
    """What TensorBoard's own reader finds."""
    (file,) = (run_dir / "events").glob("events*")
    return [
        (event.step, value.tag, value.tensor.float_val[0].hex())  # as text NaN is equal to NaN
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]


def arrays_of(checkpoint: Path) -> dict[str, dict[str, object]]:
    return {
        group: {path: _bits(leaf) for path, leaf in leaves.items()} for group, leaves in read_arrays(checkpoint).items()
    }


def _bits(leaf: object) -> object:
    if isinstance(leaf, torch.Tensor):
        return leaf.dtype, tuple(leaf.shape), leaf.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return leaf
