"""Stall and total of a save, beside torch's.   Usage: python -m benchmarks.checkpoint [--rounds N] [--out FILE] ...

Stall: how long the call keeps training from going on. Total: until the checkpoint is complete, on the disk
where the writer promises that. All variants take turns, round by round, in one process and one directory;
the times are medians (minima in brackets), the ratios those of the medians to torch.save's total of the
same state. Where a variant saves in the background, the next begins when it is done.
"""

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from benchmarks.machine import cpu
from functrain.checkpoint import Checkpointer

State = dict[str, dict[str, Tensor]]


class Times(NamedTuple):
    """Of one round, in seconds."""

    stall: float
    total: float
    load: float


Variant = Callable[[State, Path, int], Times]


def large(megabytes: int) -> State:
    """Float32 leaves of 10 MB."""
    count = max(1, megabytes // 10)
    return {"params": {f"layer{i}.weight": torch.randn(2_500_000) for i in range(count)}}


def small(leaves: int) -> State:
    """Float32 leaves of 1 KB."""
    return {"params": {f"layer{i}.weight": torch.randn(256) for i in range(leaves)}}


def timed(begin: Callable[[], object], finish: Callable[[], object], load: Callable[[], object]) -> Times:
    start = time.perf_counter()
    begin()
    stall = time.perf_counter() - start
    finish()
    total = time.perf_counter() - start
    start = time.perf_counter()
    load()
    return Times(stall, total, time.perf_counter() - start)


def torch_save(state: State, directory: Path, _round: int) -> Times:
    path = directory / "model.pt"
    return timed(lambda: torch.save(state, path), lambda: None, lambda: torch.load(path, weights_only=True))


def torch_save_synced(state: State, directory: Path, _round: int) -> Times:
    path = directory / "synced.pt"

    def save() -> None:
        with path.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    return timed(save, lambda: None, lambda: torch.load(path, weights_only=True))


class Ours:
    """One Checkpointer for all rounds, as a run has it: the first save makes what later ones use again."""

    def __init__(self, *, copy: bool) -> None:
        self._copy = copy
        self._checkpointer: Checkpointer | None = None

    def __call__(self, state: State, directory: Path, number: int) -> Times:
        folder = directory / f"functrain-{self._copy}"
        if self._checkpointer is None or self._checkpointer.directory != folder:
            self._checkpointer = Checkpointer(folder, keep=1)
        checkpointer = self._checkpointer
        return timed(
            lambda: checkpointer.save(state, step=number, copy=self._copy),
            checkpointer.wait,
            lambda: checkpointer.restore(state),
        )


def dcp_async(state: State, directory: Path, number: int) -> Times:
    path = directory / f"dcp{number}"
    futures = []
    target = {
        group: {name: torch.empty_like(value) for name, value in leaves.items()} for group, leaves in state.items()
    }
    times = timed(
        lambda: futures.append(dcp.async_save(state, checkpoint_id=path)),
        lambda: futures[0].result(),
        lambda: dcp.load(target, checkpoint_id=path),
    )
    shutil.rmtree(path)
    return times


def lightning_io(state: State, directory: Path, _round: int, *, asynchronous: bool = False) -> Times:
    """What Lightning's Trainer saves with; its asynchronous plugin holds references, so a later update may be saved."""
    from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

    plugin = AsyncCheckpointIO(TorchCheckpointIO()) if asynchronous else TorchCheckpointIO()
    path = directory / f"lightning-{asynchronous}.ckpt"
    return timed(
        lambda: plugin.save_checkpoint({"state_dict": state}, path),
        plugin.teardown,  # waits
        lambda: plugin.load_checkpoint(path, weights_only=True),
    )


VARIANTS: dict[str, Variant] = {
    "torch.save": torch_save,
    "torch.save, fsync": torch_save_synced,
    "torch.distributed.checkpoint, async": dcp_async,
    "Lightning": lightning_io,
    "Lightning, async plugin": partial(lightning_io, asynchronous=True),
    "functrain": Ours(copy=False),
    "functrain, copied first (donated states)": Ours(copy=True),
}


@contextmanager
def one_process_group() -> Iterator[None]:
    """torch.distributed.checkpoint saves asynchronously within a process group only."""
    with tempfile.TemporaryDirectory() as directory:
        dist.init_process_group("gloo", init_method=f"file://{directory}/store", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def measure(state: State, directory: Path, rounds: int) -> dict[str, list[Times]]:
    found: dict[str, list[Times]] = {name: [] for name in VARIANTS}
    for number in range(rounds + 1):
        for name, variant in VARIANTS.items():
            found[name].append(variant(state, directory, number))
    return {name: times[1:] for name, times in found.items()}  # the first round imports and warms up


def rows(found: dict[str, list[Times]]) -> Iterator[str]:
    yield "| | stall ms | total ms | load ms | stall / torch.save | total / torch.save | load / torch.load |"
    yield "|---|---|---|---|---|---|---|"
    medians = {name: Times(*map(statistics.median, zip(*times))) for name, times in found.items()}
    reference = medians["torch.save"]
    for name, median in medians.items():
        best = Times(*map(min, zip(*found[name])))
        cells = [f"{m * 1e3:.1f} ({b * 1e3:.1f})" for m, b in zip(median, best)]
        ratios = median.stall / reference.total, median.total / reference.total, median.load / reference.load
        yield f"| {name} | " + " | ".join([*cells, *(f"{ratio:.2f}" for ratio in ratios)]) + " |"


def report(arguments: argparse.Namespace) -> str:
    lines = [
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, {os.cpu_count()} "
        f"cores, load {os.getloadavg()[0]:.1f} at the start. {arguments.rounds} rounds, interleaved; medians, minima "
        "in brackets. torch.save (unless said) and Lightning do not sync to the disk; the others do. "
        "functrain's total includes checksums and the deletion of the checkpoint before.",
    ]
    states = {
        f"{arguments.megabytes} MB in leaves of 10 MB": large(arguments.megabytes),
        f"{arguments.leaves} leaves of 1 KB": small(arguments.leaves),
    }
    with one_process_group():
        for title, state in states.items():
            with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
                lines += ["", f"## {title}", "", *rows(measure(state, Path(directory), arguments.rounds))]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--leaves", type=int, default=2000)
    parser.add_argument("--directory", type=Path, help="where to write; default: the system's temporary directory")
    parser.add_argument("--out", type=Path, help="also write the tables here")
    arguments = parser.parse_args()
    text = report(arguments)
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("# Checkpoints\n\n`python -m benchmarks.checkpoint`\n\n" + text)


if __name__ == "__main__":
    main()
