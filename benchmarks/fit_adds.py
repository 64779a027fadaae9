"""What `fit` adds to the donated step.   Usage: python -m benchmarks.fit_adds [--rounds 60]

Tiny network (64-64-64-10, batch 32, AdamW), one thread, one process. In turns, before and in each epoch of one `fit`:
the compiled program alone, the bare step on one batch, the data alone, the epoch (a DataLoader over tensors in memory,
shuffled, metrics on, no progress shown). Minimum and median over the rounds, in microseconds a step, of the wall clock
and of the thread's processor time, which other processes disturb less.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.data import as_stream
from functrain.foundation.trees import copy_tensors, tensors

STEPS, BATCH = 200, 32
Times = dict[str, list[tuple[float, float]]]


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.thread_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    wall, thread = clocks()
    return (wall - start[0]) / STEPS * 1e6, (thread - start[1]) / STEPS * 1e6


def timed(run: Callable[[], None]) -> tuple[float, float]:
    start = clocks()
    run()
    return since(start)


def measure(rounds: int) -> Times:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    inputs, targets = torch.randn(STEPS * BATCH, 64), torch.randint(0, 10, (STEPS * BATCH,))
    batch = (inputs[:BATCH], targets[:BATCH])
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=BATCH, shuffle=True)
    stream = as_stream(loader, key=0)
    state = ft.init_state(net, ft.classification(), ft.optim.adamw(1e-3))
    step: Any = ft.compile(ft.train_step, donate=True)
    held = [step(copy_tensors(state), batch)[0]]
    (program,) = step.runner._programs.values()
    arguments = [*tensors(held[0]), *batch]

    def alone() -> None:
        for _ in range(STEPS):
            program.run(list(arguments))

    def bare() -> None:
        for _ in range(STEPS):
            held[0], _ = step(held[0], batch)

    def data() -> None:
        for _ in stream.batches(0):
            pass

    others = {"program alone": alone, "bare step": bare, "data alone": data}
    times: Times = {name: [] for name in (*others, "fit")}
    start = [clocks()]

    @ft.on("before_epoch")
    def before(_event: ft.Event) -> None:
        for name, run in others.items():
            times[name].append(timed(run))
        start[0] = clocks()

    @ft.on("after_epoch")
    def after(_event: ft.Event) -> None:
        times["fit"].append(since(start[0]))

    ft.fit(state, loader, epochs=rounds + 2, compile=True, progress=False, callbacks=[before, after])
    return {name: values[2:] for name, values in times.items()}  # the first compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    torch.set_num_threads(1)
    print("| | wall, min | median | processor time, min | median |\n|---|---|---|---|---|")
    for name, values in measure(parser.parse_args().rounds).items():
        wall, thread = zip(*values)
        numbers = (min(wall), statistics.median(wall), min(thread), statistics.median(thread))
        print(f"| {name} | {' | '.join(f'{number:.0f}' for number in numbers)} |")


if __name__ == "__main__":
    main()
