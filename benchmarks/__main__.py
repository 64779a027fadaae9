"""Time per step and peak memory, side by side.   Usage: python -m benchmarks [--rounds N] [--out FILE]

Every variant trains the same network on the same data in memory. Times: all variants take turns, round by
round, in one process; minimum and median over the rounds. Peak memory: each variant in a process of its own.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from benchmarks.machine import cpu
from functrain.models import DigitsCNN

STEPS = 200
BATCH = 32
Round = Callable[[], float]


def tiny() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, torch.randn(STEPS * BATCH, 64)


def digits() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return DigitsCNN(), torch.randn(STEPS * BATCH, 1, 8, 8)


NETWORKS = {"tiny (64-64-64-10)": tiny, "digits CNN": digits}


def torch_loop(make: Callable[[], tuple[nn.Module, Tensor]], *, compiled: bool) -> Round:
    """The loop that a careful user writes by hand, with torch's fastest optimizer."""
    model, inputs = make()
    targets = torch.randint(0, 10, (len(inputs),))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    loss_fn = torch.compile(loss_of) if compiled else loss_of

    def one_round() -> float:
        start = time.perf_counter()
        for rows in torch.randperm(len(inputs)).split(BATCH):
            loss = loss_fn(inputs[rows], targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - start) / STEPS

    return one_round


def functional_loop(make: Callable[[], tuple[nn.Module, Tensor]], *, guarded: bool) -> Round:
    """The eager functional step that a careful user writes by hand: new tensors for parameters and moments of AdamW.

    It gives the loss alone. With `guarded` it also does what `train_step` is asked for: the accuracy, the gradient's
    norm, sums for the epoch's means, and no update where loss or gradient is not finite.
    """
    net, inputs = make()
    x, y = inputs[:BATCH], torch.randint(0, 10, (BATCH,))
    names = [name for name, _ in net.named_parameters()]
    params = tuple(p.detach().clone() for p in net.parameters())
    means, squares = (tuple(torch.zeros_like(p) for p in params) for _ in range(2))
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    count, sums = 0, torch.zeros(3)

    def one_step() -> Tensor:
        nonlocal params, means, squares, buffers, count, sums
        leaves = [p.detach().requires_grad_() for p in params]
        new_buffers = {name: b.clone() for name, b in buffers.items()}
        logits = torch.func.functional_call(net, (dict(zip(names, leaves)), new_buffers), (x,))
        loss = F.cross_entropy(logits, y)
        grads = torch.autograd.grad(loss, leaves)
        if guarded:
            norm = torch.stack(torch._foreach_norm(grads)).norm()
            if not (loss.isfinite() & norm.isfinite()):
                return loss.detach()
            correct = (logits.argmax(1) == y).sum()
            sums = sums + torch.stack([loss.detach() * BATCH, correct.float(), torch.tensor(float(BATCH))])
        buffers, count = new_buffers, count + 1
        means = torch._foreach_lerp(means, grads, 0.1)
        squares = torch._foreach_mul(squares, 0.999)
        torch._foreach_addcmul_(squares, grads, grads, value=0.001)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, (1 - 0.999**count) ** 0.5)
        torch._foreach_add_(roots, 1e-8)
        params = torch._foreach_mul(params, 1 - 1e-3 * 1e-2)
        torch._foreach_addcdiv_(params, means, roots, value=-1e-3 / (1 - 0.9**count))
        return loss.detach()

    def one_round() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            one_step()
        return (time.perf_counter() - start) / STEPS

    return one_round


def pure_step(
    make: Callable[[], tuple[nn.Module, Tensor]], *, compiled: bool, donate: bool = False, engine: str = "package"
) -> Round:
    """`train_step` alone on one batch."""
    model, inputs = make()
    batch = (inputs[:BATCH], torch.randint(0, 10, (BATCH,)))
    state = ft.init_state(model, ft.classification(), ft.optim.adamw(1e-3))
    step = ft.compile(ft.train_step, donate=donate, engine=engine) if compiled else ft.train_step

    def one_round() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(STEPS):
            state, _ = step(state, batch)
        return (time.perf_counter() - start) / STEPS

    return one_round


def one_by_one(make: Callable[[], tuple[nn.Module, Tensor]]) -> Round:
    """The second epoch of a `fit` of its own, whose step an earlier one has compiled, an update a call."""
    model, inputs = make()
    loader = DataLoader(TensorDataset(inputs, torch.randint(0, 10, (len(inputs),))), batch_size=BATCH, shuffle=True)
    state = ft.init_state(model, ft.classification(), ft.optim.adamw(1e-3))
    moments: list[float] = []

    @ft.on("before_epoch", "after_epoch")
    def note(_event: ft.Event) -> None:
        moments.append(time.perf_counter())

    def one_round() -> float:
        moments.clear()
        ft.fit(state, loader, epochs=2, compile=True, progress=False, callbacks=[note], steps_per_call=1)
        return (moments[3] - moments[2]) / STEPS

    return one_round


def whole_fit(
    make: Callable[[], tuple[nn.Module, Tensor]], others: dict[str, Round], rounds: int
) -> dict[str, list[float]]:
    """`fit` on a plain DataLoader with metrics and logs; between its epochs, the other variants take their turns."""
    model, inputs = make()
    loader = DataLoader(TensorDataset(inputs, torch.randint(0, 10, (len(inputs),))), batch_size=BATCH, shuffle=True)
    times: dict[str, list[float]] = {name: [] for name in (*others, "functrain: fit")}
    started = 0.0

    @ft.on("before_epoch")
    def before(_event: ft.Event) -> None:
        nonlocal started
        for name, one_round in others.items():
            times[name].append(one_round())
        started = time.perf_counter()

    @ft.on("after_epoch")
    def after(_event: ft.Event) -> None:
        times["functrain: fit"].append((time.perf_counter() - started) / STEPS)

    state = ft.init_state(model, ft.classification(), ft.optim.adamw(1e-3))
    ft.fit(state, loader, epochs=rounds + 1, compile=True, progress=False, callbacks=[before, after])
    return {name: values[1:] for name, values in times.items()}  # the first round compiles


def variants(make: Callable[[], tuple[nn.Module, Tensor]]) -> dict[str, Callable[[], Round]]:
    return {
        "torch by hand: eager, fused AdamW": lambda: torch_loop(make, compiled=False),
        "torch by hand: torch.compile on model + loss": lambda: torch_loop(make, compiled=True),
        "torch by hand: functional, eager": lambda: functional_loop(make, guarded=False),
        "torch by hand: functional, eager, guarded, with metrics": lambda: functional_loop(make, guarded=True),
        "functrain: train_step, eager": lambda: pure_step(make, compiled=False),
        "functrain: train_step, compiled": lambda: pure_step(make, compiled=True),
        "functrain: train_step, compiled, donated": lambda: pure_step(make, compiled=True, donate=True),
        "functrain: the same, engine='torch'": lambda: pure_step(make, compiled=True, donate=True, engine="torch"),
        "functrain: fit, steps_per_call=1": lambda: one_by_one(make),
    }


def peak_memory(network: str, variant: str) -> float:
    """Largest resident memory, in MiB, of a process that runs one variant for two rounds."""
    command = [sys.executable, "-m", "benchmarks", "--alone", network, variant]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout.split()[-1])


def run_alone(network: str, variant: str) -> None:
    if variant == "functrain: fit":
        whole_fit(NETWORKS[network], {}, 1)
    else:
        one_round = variants(NETWORKS[network])[variant]()
        one_round()
        one_round()
    # Not getrusage's: that of a child process begins at its parent's.
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def table(rounds: int) -> str:
    lines = [
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads. Batch {BATCH}; {rounds} rounds of {STEPS} steps, "
        "interleaved. Times in us a step. Peak memory is of the whole process, compiler included.",
    ]
    for network, make in NETWORKS.items():
        times = whole_fit(make, {name: build() for name, build in variants(make).items()}, rounds)
        fastest = min(min(values) for name, values in times.items() if name.startswith("torch"))
        lines += [
            "",
            f"## {network}",
            "",
            "| variant | min | median | fastest torch / this (min) | peak MiB |",
            "|---|---|---|---|---|",
        ]
        for name, values in times.items():
            lines.append(
                f"| {name} | {min(values) * 1e6:.0f} | {statistics.median(values) * 1e6:.0f} "
                f"| {fastest / min(values):.2f} | {peak_memory(network, name):.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--alone", nargs=2, metavar=("NETWORK", "VARIANT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        run_alone(*arguments.alone)
        return
    text = table(arguments.rounds)
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("# Steps and memory\n\n`make bench`\n\n" + text)


if __name__ == "__main__":
    main()
