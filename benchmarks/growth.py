"""What grows with the length and the width of a run.   Usage: python -m benchmarks.growth [PART ...] [--out FILE]

Time and memory against the number of updates, of epochs with their records and checkpoints, of leaves, of members and
of ranks. Each part is a process of its own, one thread, compiled; networks are so small that what is not arithmetic
shows. Time is that of a window of updates, memory the resident set of the process after it.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

import functrain as ft
from benchmarks.leaves import contenders, microseconds
from benchmarks.machine import cpu, load, write
from benchmarks.members import epoch_seconds, examples, states
from benchmarks.members import mlp as member

BATCH = 32
Row = tuple[int, float, float]  # how many; microseconds; MiB of the process


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def network() -> ft.TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return ft.init_state(model, ft.classification(), ft.optim.adamw(1e-3))


def loader(batches: int) -> ft.data.Loader:
    data = TensorDataset(torch.randn(batches * BATCH, 64), torch.randint(10, (batches * BATCH,)))
    return ft.data.Loader(data, BATCH, shuffle=True)


def by_epoch(marks: Sequence[int], batches: int, run_dir: Path | None) -> Iterator[Row]:
    """The epochs of one `fit`: at each mark the mean time of the tenth of the epochs before it."""
    ends, memory = [time.perf_counter()], [resident()]

    @ft.on("after_epoch")
    def note(_event: ft.Event) -> None:
        ends.append(time.perf_counter())
        memory.append(resident())

    ft.fit(network(), loader(batches), epochs=max(marks), callbacks=[note], run_dir=run_dir, progress=False)
    for mark in marks:
        window = max(mark // 10, 1)
        yield mark, (ends[mark] - ends[mark - window]) / window * 1e6, memory[mark]


def updates() -> Iterator[Row]:
    """A step of one run, after so many."""
    for epochs, seconds, memory in by_epoch((10, 100, 300, 1000), 100, None):
        yield epochs * 100, seconds / 100, memory


def epochs() -> Iterator[Row]:
    """An epoch of four updates with its record and its checkpoint, after so many."""
    with tempfile.TemporaryDirectory() as folder:
        yield from by_epoch((10, 100, 300, 1000), 4, Path(folder) / "run")


def leaves() -> Iterator[Row]:
    """A step of a state with so many leaves."""
    for count in (40, 150, 400, 1500):
        number, runs = contenders(count)
        yield number, microseconds(runs["train_step"]), resident()


def members() -> Iterator[Row]:
    """A step of so many members of 64-64-64-10."""
    data = ft.data.Loader(examples((64,), "classification"), BATCH)
    for count in (1, 2, 4, 16, 64):
        found = states(count, lambda: member(64, 64, 64, 10), "classification")
        seconds = epoch_seconds(ft.stack(found, vectorize=True) if count > 1 else found[0], data)
        yield count, seconds / 40 * 1e6, resident()


def ranks() -> Iterator[Row]:
    """An update of fast `ddp`, 32 examples a rank, on so many ranks of one machine."""
    for count in (1, 2, 4):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--no-python"]
        command += [sys.executable, "-m", "benchmarks.growth", "--rank"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, memory = map(float, result.stdout.split()[-2:])
        yield count, seconds * 1e6, memory


def one_rank() -> None:
    """Print the shortest of a few windows of updates, by rank 0."""
    world = ft.distributed.start()
    step, state = ft.compile(ft.train_step, donate=True), ft.shard(network(), strategy="ddp", reduction="fast")
    batch, best = (torch.randn(BATCH, 64), torch.randint(10, (BATCH,))), float("inf")
    for _ in range(12):
        began = time.perf_counter()
        for _ in range(50):
            state, _ = step(state, batch)
        best = min(best, (time.perf_counter() - began) / 50)
    if world.rank == 0:
        print(best, resident())


PARTS: dict[str, tuple[Callable[[], Iterator[Row]], str, str]] = {
    "updates": (updates, "updates done", "us an update"),
    "epochs": (epochs, "epochs done", "us an epoch, with record and checkpoint"),
    "leaves": (leaves, "leaves", "us a step"),
    "members": (members, "members", "us a step of all"),
    "ranks": (ranks, "ranks on 2 cores", "us an update"),
}


def measured(part: str) -> list[Row]:
    """The rows of a part, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth", "--alone", part]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{part} failed:\n{result.stderr[-2000:]}")
    return [tuple(row) for row in json.loads(result.stdout.splitlines()[-1])]


def table(part: str, rows: Sequence[Row]) -> str:
    _, what, unit = PARTS[part]
    lines = [f"| {what} | {unit} | MiB of the process |", "|---|---|---|"]
    lines += [f"| {count:,} | {value:,.1f} | {memory:,.0f} |" for count, value, memory in rows]
    return "\n".join(lines)


def plot(found: dict[str, list[Row]], path: Path) -> None:
    """Time (line) and memory (dashes) against each number."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "functrain"  # the same file for the same figures
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(3.2 * len(found), 3), layout="constrained", squeeze=False)
    for axis, (part, rows) in zip(axes[0], found.items()):
        counts, values, memory = zip(*rows)
        _, what, unit = PARTS[part]
        axis.plot(counts, values, "o-", color="tab:blue")
        axis.set(xscale="log", ylim=(0, None), xlabel=what, title=part)
        axis.set_ylabel(unit.partition(",")[0], color="tab:blue")
        other = axis.twinx()
        other.plot(counts, memory, "s--", color="tab:gray", markersize=4)
        other.set_ylim(0, None)
        other.set_ylabel("MiB of the process", color="tab:gray")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, help="also write the tables here, and the figure beside them")
    parser.add_argument("--alone", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.rank:
        one_rank()
    elif arguments.alone:
        print(json.dumps(list(PARTS[arguments.alone][0]())))
    else:
        about = f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, {load()}."
        found = {part: measured(part) for part in arguments.parts or PARTS}
        text = "\n\n".join([about, *(f"## {part.title()}\n\n{table(part, rows)}" for part, rows in found.items())])
        print(text)
        if arguments.out is not None:
            write(arguments.out, "Growth", "python -m benchmarks.growth", __doc__, f"{text}\n")
            plot(found, arguments.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
