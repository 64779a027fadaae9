"""Where the time of training goes.

`fit` overlaps what it can; here its phases come one after the other, and the host waits for the device after each, so
that each can be timed by itself.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch

from functrain.checkpoint import Checkpointer
from functrain.compiler import runner_for
from functrain.compiler.request import recorded
from functrain.data import as_stream
from functrain.diagnostics.flops import count_flops, peak_flops
from functrain.diagnostics.peak_memory import PeakMemory
from functrain.distributed import current_world
from functrain.foundation.errors import FunctrainError
from functrain.foundation.keys import fold_in
from functrain.foundation.numbers import is_integer
from functrain.foundation.scratch import scratch_folder
from functrain.foundation.tf32 import tf32 as tf32_products
from functrain.foundation.tf32 import tf32_flags
from functrain.foundation.trees import copy_tensors, nbytes
from functrain.loop.batches import Feed, MicroBatch, no_training_data
from functrain.loop.memory import InParts, check_micro_batch
from functrain.loop.resume.environment import fingerprint
from functrain.metrics.reading import numbers
from functrain.step import TrainState, train_step
from functrain.step.execution import Runner, eager

WARM_UP = 3  # updates; the first compiles
SAVES = 3
TRACED = 5  # updates in the trace, which grows by megabytes with each


@dataclass(frozen=True)
class Phase:
    """A phase's times.

    Attributes:
        median, minimum: seconds.
        times: how often it was measured.
    """

    median: float
    minimum: float
    times: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Phase":
        """Of its single times."""
        return cls(statistics.median(seconds), min(seconds), len(seconds))


@dataclass(frozen=True)
class Profile:
    """What was measured.

    Attributes:
        phases: "data" (reading, padding and moving an update's batches), "step" (the update itself), "metrics"
            (reading an update's metrics from the device, as the log does every so often), "checkpoint" (how long a
            save keeps training waiting) and "checkpoint on disk" (until it is complete).
        first_step: seconds of the first update, which compiles or loads what was compiled before.
        samples_per_update: examples.
        state_bytes: of the whole state.
        peak_bytes: largest memory while it trained: on a GPU torch's, else the process's; None if unknown.
        flops_per_update: operations of forward and backward pass.
        peak_flops: what the GPU can do a second; None if not known.
        environment: device, threads, versions.
        trace: the Chrome trace, to be opened at ui.perfetto.dev or chrome://tracing.
    """

    phases: dict[str, Phase]
    first_step: float
    samples_per_update: float
    state_bytes: int
    peak_bytes: int | None
    flops_per_update: int
    peak_flops: float | None
    environment: dict[str, Any]
    trace: Path | None = None

    @property
    def samples_per_second(self) -> float:
        """Of data and step, one after the other."""
        return self.samples_per_update / (self.phases["data"].median + self.phases["step"].median)

    @property
    def flops_per_second(self) -> float:
        """During the step."""
        return self.flops_per_update / self.phases["step"].median

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation: the share of the GPU's peak that the step reaches; None where that is not known."""
        return None if self.peak_flops is None else self.flops_per_second / self.peak_flops

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "seconds": {
                name: {"median": phase.median, "minimum": phase.minimum, "times": phase.times}
                for name, phase in self.phases.items()
            },
            "first_step_seconds": self.first_step,
            "samples_per_update": self.samples_per_update,
            "samples_per_second": self.samples_per_second,
            "state_bytes": self.state_bytes,
            "peak_bytes": self.peak_bytes,
            "flops_per_update": self.flops_per_update,
            "flops_per_second": self.flops_per_second,
            "peak_flops_per_second": self.peak_flops,
            "mfu": self.mfu,
            "environment": self.environment,
            "trace": None if self.trace is None else str(self.trace),
        }


def profile(
    state: TrainState,
    loader: Any,
    *,
    steps: int = 20,
    out: str | Path | None = None,
    compile: bool = True,
    backend: str = "inductor",
    mode: str = "default",
    engine: str = "package",
    donate: bool = True,
    tail: str = "extend",
    micro_batch: int | str | None = None,
    tf32: bool | None = None,
) -> Profile:
    """Train for a few updates, timed phase by phase, then a few more under torch's profiler.

    Args:
        state: where to start; not changed.
        loader: as for `fit`; begun again where it is shorter than what is asked for.
        steps: updates to time.
        out: directory for `trace.json`, and for the checkpoint that is written to be timed and removed; None makes no
            trace, and uses the system's temporary directory.
        compile, backend, mode, engine, donate, tail, micro_batch, tf32: as for `fit`.

    Raises:
        ValueError: for arguments that are not allowed.
        FunctrainError: where several processes train together.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> found = ft.profile(state, [(torch.ones(4, 2), torch.zeros(4, 1))], steps=2, compile=False)
        >>> sorted(found.phases), found.samples_per_update, found.mfu
        (['checkpoint', 'checkpoint on disk', 'data', 'metrics', 'step'], 4.0, None)
    """
    if not is_integer(steps, 1):
        raise ValueError(f"steps must be a whole number of updates, 1 or more; got {steps!r}")
    if state.micro_step:
        raise ValueError(
            f"the state is {state.micro_step} micro-batches into an update; profile begins between updates"
        )
    world = current_world()
    if world.size > 1:
        raise FunctrainError("profile measures one process; start it without torchrun")
    check_micro_batch(micro_batch, world)
    parts: list[Runner] = [runner_for(compile, donate=donate, backend=backend, mode=mode, engine=engine), eager]
    if micro_batch is not None:
        parts = [InParts(run, micro_batch, state.recipe.objective) for run in parts]
    feed = Feed(
        as_stream(loader, fold_in(state.key, "train"), what="loader"), state.recipe.objective, state.device, world
    )
    folder = None if out is None else Path(out)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        work = _Work(copy_tensors(state), _windows(feed, state.recipe.accumulate, tail), parts[0])
        with tf32_products(state.device, tf32):
            return _measure(
                work, state, steps, folder, parts[1], recorded(backend, mode, engine) if compile else "eager", donate
            )
    finally:
        feed.stream.close()


@dataclass
class _Work:
    """A training under way."""

    state: TrainState
    windows: Iterator[list[MicroBatch]]
    run: Runner
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def update(self) -> list[MicroBatch]:
        """One update, its phases timed."""
        device = self.state.device
        with self._phase("data", device):
            window = next(self.windows)
        with self._phase("step", device):
            for part in window:
                self.state, metrics = train_step(self.state, part.batch, run=self.run, **_options(part))
        with self._phase("metrics", device):
            numbers(metrics.values())
        return window

    @contextmanager
    def _phase(self, name: str, device: torch.device) -> Iterator[None]:
        start = time.perf_counter()
        with torch.profiler.record_function(name):
            yield
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)


def _measure(
    work: _Work, state: TrainState, steps: int, folder: Path | None, run_eagerly: Runner, how: str, donates: bool
) -> Profile:
    device, precision = state.device, state.recipe.precision
    for _ in range(WARM_UP):
        work.update()
    first_step = work.seconds["step"][0]
    work.seconds.clear()
    seen, peak = work.state.samples_seen, PeakMemory(device)
    for _ in range(steps):
        window = work.update()
    peak_bytes, seen = peak.bytes(), work.state.samples_seen - seen
    phases = {name: Phase.of(seconds) for name, seconds in work.seconds.items()}
    trace = None if folder is None else _trace(work, min(steps, TRACED), folder / "trace.json")
    phases |= _checkpoint(work.state, folder, donates)
    flops = sum(count_flops(state, part.batch, run=run_eagerly, examples=part.examples) for part in window)
    environment = fingerprint(device, how) | {"precision": precision}
    return Profile(
        phases=phases,
        first_step=first_step,
        samples_per_update=seen / steps,
        state_bytes=nbytes(work.state),
        peak_bytes=peak_bytes,
        flops_per_update=flops,
        peak_flops=peak_flops(environment["device"], precision, tf32=tf32_flags()["products"]),
        environment=environment,
        trace=trace,
    )


def _trace(work: _Work, updates: int, path: Path) -> Path:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if work.state.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiler:
        for _ in range(updates):
            work.update()
    profiler.export_chrome_trace(str(path))
    return path


def _checkpoint(state: TrainState, folder: Path | None, donates: bool) -> dict[str, Phase]:
    """Save a few times, on the disk where `folder` is; the first, which imports what writes, does not count."""
    stalls, totals = [], []
    with scratch_folder(folder, ".profile-") as temporary, Checkpointer(temporary) as saver:
        for number in range(1 + SAVES):
            start = time.perf_counter()
            saver.save(state, step=state.step + number, copy=donates)
            stalls.append(time.perf_counter() - start)
            saver.wait()
            totals.append(time.perf_counter() - start)
    return {"checkpoint": Phase.of(stalls[1:]), "checkpoint on disk": Phase.of(totals[1:])}


def _windows(feed: Feed, accumulate: int, tail: str) -> Iterator[list[MicroBatch]]:
    """The micro-batches of one update after the other, epoch after epoch."""
    for epoch in count():
        window: list[MicroBatch] = []
        found = False
        for micro_batch in feed.windows(epoch, 0, accumulate, tail):
            found = True
            window.append(micro_batch)
            if len(window) == accumulate or micro_batch.ends_window:
                yield window
                window = []
        if not found:
            raise no_training_data()


def _options(part: MicroBatch) -> dict[str, Any]:
    return {"examples": part.examples, "end_window": part.ends_window}
