"""Peak memory of a step above the resting state.   Usage: python -m benchmarks.memory [--out FILE]

8 x Linear(2048), batch 32, AdamW: 128 MiB of parameters, 384 MiB with the optimizer's moments. Each way is a process of
its own. At rest are the parameters and moments, without gradients; the peak is the kernel's count of the process's
resident memory over the next steps, after those that compile. Before them, what the allocator keeps of freed memory
is given back to the system, so that the rest is what is really held.
"""

import argparse
import ctypes
import gc
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from benchmarks.machine import cpu, load, said, write

WIDTH, LAYERS, BATCH, STEPS = 2048, 8, 32, 4
MIB = 1 << 20

Step = Callable[[], None]


def model() -> nn.Module:
    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.ReLU())))[:-1]


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, WIDTH), torch.randint(WIDTH, (BATCH,))


def functrain(*, donate: bool, **options: Any) -> Step:
    state = ft.init_state(model(), ft.classification(), ft.optim.adamw(1e-3), **options)
    step, data = ft.compile(ft.train_step, donate=donate), batch()

    def one_step() -> None:
        nonlocal state
        state, _ = step(state, data)

    return one_step


def by_hand(*, compiled: bool) -> Step:
    net, (inputs, targets) = model(), batch()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)

    def forward(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(net(x), y)

    loss_of = torch.compile(forward) if compiled else forward

    def one_step() -> None:
        loss_of(inputs, targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return one_step


LOOP, DONATED = "torch by hand, in place, fused AdamW", "functrain: donated"
TAKEN = "functrain: donated, refuse_nonfinite=False"
WAYS: dict[str, Callable[[], Step]] = {
    LOOP: lambda: by_hand(compiled=False),
    "torch by hand, torch.compile on model + loss": lambda: by_hand(compiled=True),
    DONATED: lambda: functrain(donate=True),
    TAKEN: lambda: functrain(donate=True, refuse_nonfinite=False),
    "functrain: donated, clip_norm=1": lambda: functrain(donate=True, clip_norm=1.0),
    "functrain: not donated": lambda: functrain(donate=False),
}


@dataclass(frozen=True)
class Memory:
    """In MiB.

    Attributes:
        rest: of the whole process, between steps.
        extra: how much more at the peak of a step.
    """

    rest: float
    extra: float


def measure(way: str) -> Memory:
    """Of one way, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--alone", way]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{way} failed:\n{result.stderr[-2000:]}")
    return Memory(*map(float, result.stdout.split()[-2:]))


def run_alone(way: str) -> None:
    one_step = WAYS[way]()
    for _ in range(2):
        one_step()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    rest = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, the compiler's say, is forgotten
    for _ in range(STEPS):
        one_step()
    print(rest, resident("VmHWM") - rest)


def resident(what: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{what}:")[1].split()[0]) * 1024 / MIB


def report() -> str:
    found = {way: measure(way) for way in WAYS}
    loop, donated, taken = (found[way].extra for way in (LOOP, DONATED, TAKEN))
    lines = [
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, {load()}.",
        "",
        "| way | extra peak, MiB | process at rest, MiB |",
        "|---|---|---|",
        *(f"| {way} | {memory.extra:.0f} | {memory.rest:.0f} |" for way, memory in found.items()),
        "",
        "| goal | found | |",
        "|---|---|---|",
        f"| donated, at most that of the in-place loop | {donated / loop:.2f} x | {said(donated <= loop)} |",
        f"| with refuse_nonfinite=False, below half of it | {taken / loop:.2f} x | {said(taken < loop / 2)} |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--alone", metavar="WAY", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        run_alone(arguments.alone)
        return
    text = report()
    print(text)
    if arguments.out is not None:
        write(arguments.out, "Peak memory", "python -m benchmarks.memory", __doc__, text)


if __name__ == "__main__":
    main()
