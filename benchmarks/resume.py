"""What checkpoints cost a run, and how soon it is back.   Usage: python -m benchmarks.resume [--rounds N] [--out FILE]

Overhead: microseconds a step of `fit` on the digits, with a checkpoint every 50 steps, beside the same without; the
two take turns, medians. Back: an interruption's snapshot (from the signal to the end of `fit`), and the way back (from
the call of `fit` to the end of its first step, compiled step from the store).
"""

import argparse
import os
import platform
import signal
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from benchmarks.__main__ import cpu
from functrain.models import DigitsCNN

STEPS, BATCH, SAVE_EVERY = 300, 32, 50


def make() -> tuple[ft.TrainState, DataLoader[tuple[torch.Tensor, ...]]]:
    torch.manual_seed(0)
    inputs, targets = torch.randn(STEPS * BATCH, 1, 8, 8), torch.randint(0, 10, (STEPS * BATCH,))
    state = ft.init_state(DigitsCNN(), ft.classification(), ft.optim.adamw(1e-3))
    return state, DataLoader(TensorDataset(inputs, targets), BATCH, shuffle=True)


class Clock:
    """When the steps of a run ended."""

    scopes = ("after_step",)

    def __init__(self, stop_at: int | None = None) -> None:
        self.ends: list[float] = []
        self._stop_at = stop_at

    def __call__(self, event: ft.Event) -> None:
        self.ends.append(time.perf_counter())
        if event.state.step == self._stop_at:
            signal.raise_signal(signal.SIGTERM)


def per_step(folder: Path, save_every: int | None) -> float:
    state, loader = make()
    clock = Clock()
    ft.fit(
        state, loader, steps=STEPS, run_dir=folder, resume="never", compile=True, progress=False,
        save_every=save_every, callbacks=[clock],
    )  # fmt: skip
    return (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)


def interrupted_and_back(folder: Path) -> tuple[float, float]:
    state, loader = make()
    clock = Clock(stop_at=20)
    options = {"steps": STEPS, "run_dir": folder, "compile": True, "progress": False, "on_signal": "return"}
    ft.fit(state, loader, callbacks=[clock], **options)  # type: ignore[arg-type]
    snapshot = time.perf_counter() - clock.ends[-1]
    state, loader = make()
    clock = Clock(stop_at=21)
    start = time.perf_counter()
    ft.fit(state, loader, callbacks=[clock], **options)  # type: ignore[arg-type]
    return snapshot, clock.ends[0] - start


def report(rounds: int) -> str:
    times: dict[int | None, list[float]] = {None: [], SAVE_EVERY: []}
    back = []
    with tempfile.TemporaryDirectory() as directory:
        for number in range(rounds + 1):
            for save_every, found in times.items():
                found.append(per_step(Path(directory, f"run-{save_every}"), save_every))
            back.append(interrupted_and_back(Path(directory, f"back-{number}")))
    plain, saving = (statistics.median(found[1:]) * 1e6 for found in times.values())  # the first round compiles
    snapshot, resumed = (statistics.median(values) * 1e3 for values in zip(*back[1:]))
    return "\n".join(
        [
            f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, {os.cpu_count()} "
            f"cores, load {os.getloadavg()[0]:.1f} at the end. Digits CNN, batch {BATCH}, {rounds} rounds of {STEPS} "
            "steps; medians.",
            "",
            "| | |",
            "|---|---:|",
            f"| fit, a step, without checkpoints in between | {plain:.0f} us |",
            f"| fit, a step, with one every {SAVE_EVERY} steps | {saving:.0f} us |",
            f"| overhead | {(saving / plain - 1) * 100:.1f} % |",
            f"| from a signal to the snapshot on disk and the end of fit | {snapshot:.0f} ms |",
            f"| from the call of fit to the end of the first step after it | {resumed:.0f} ms |",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    text = report(arguments.rounds)
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("# Checkpoints in a run\n\n`python -m benchmarks.resume`\n\n" + text)


if __name__ == "__main__":
    main()
