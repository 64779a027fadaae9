"""From the call to the first step done: cold, and the next start.   Usage: python -m benchmarks.start [--out FILE]

Each start is a process of its own; the caches of functrain and of inductor are empty for the first. Time runs from
the call of `fit` (for the loop by hand: of the first step) to the end of the first step. Importing torch and
functrain, and making model and data, come before.

What is compiled differs: by hand it is model and loss, forward and backward; functrain's program also holds the
optimizer, the guard against values that are not finite, and the metrics. The steps of all starts must be bit for bit
the same.
"""

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from benchmarks.machine import cpu, load, said, write
from functrain.models import DigitsCNN

STARTS = 4


def digits() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    return DigitsCNN(), (torch.randn(64, 1, 8, 8), torch.randint(0, 10, (64,)))


class Encoder(nn.Module):
    """A 4-layer transformer, width 192, on 128 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 192)
        layer = nn.TransformerEncoderLayer(192, 6, 768, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(192, 64)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(tokens))).transpose(1, 2)


def transformer() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    return Encoder(), (torch.randint(0, 64, (8, 128)), torch.randint(0, 64, (8, 128)))


NETWORKS = {"digits CNN": digits, "4-layer transformer": transformer}


def digest(tensors: Iterable[Tensor]) -> str:
    """Of the bits, after the first step."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def fit(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[float, str]:
    objective = ft.supervised(F.cross_entropy)
    state = ft.init_state(model, objective, ft.optim.adamw(1e-3))
    start = time.perf_counter()
    state = ft.fit(state, [batch], steps=1).state
    return time.perf_counter() - start, digest(state.params.values())


def by_hand(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[float, str]:
    inputs, targets = batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    start = time.perf_counter()
    torch.compile(lambda x, y: F.cross_entropy(model(x), y))(inputs, targets).backward()
    optimizer.step()
    return time.perf_counter() - start, digest(model.parameters())


FIT, BY_HAND = "functrain: fit", "torch by hand: torch.compile on model + loss"
WAYS: dict[str, Callable[[nn.Module, tuple[Tensor, Tensor]], tuple[float, str]]] = {
    FIT: fit,
    BY_HAND: by_hand,
}


def starts(network: str, way: str) -> tuple[list[float], set[str]]:
    """Seconds of the first start and of those after it, and the digests of their steps."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {"FUNCTRAIN_CACHE_DIR": f"{folder}/functrain", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
        command = [sys.executable, "-m", "benchmarks.start", "--alone", network, way]
        environment = {**os.environ, **caches}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles all of its Python sources
        seconds, digests = [], set()
        for _ in range(STARTS):
            result = subprocess.run(command, capture_output=True, text=True, env=environment)
            if result.returncode:
                raise RuntimeError(f"{network}, {way}:\n{result.stderr[-2000:]}")
            taken, made = result.stdout.split()
            print(f"{network}, {way}: {float(taken):.2f} s", file=sys.stderr, flush=True)
            seconds.append(float(taken))
            digests.add(made)
        return seconds, digests


def table() -> str:
    lines = [
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, {load()}. "
        f"Seconds to the first step done; the next start is the minimum of {STARTS - 1}.",
        "",
        "| network | way | first start | next start | all starts' steps |",
        "|---|---|---|---|---|",
    ]
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for network in NETWORKS:
        for way in WAYS:
            (first, *later), digests = starts(network, way)
            found[network, way] = first, min(later)
            same = "bit for bit the same" if len(digests) == 1 else "**differ**"
            lines.append(f"| {network} | {way} | {first:.1f} | {min(later):.2f} | {same} |")
    lines += ["", "| goal | found | |", "|---|---|---|"]
    for network in NETWORKS:
        (first, later), rival = found[network, FIT], found[network, BY_HAND][0]
        lines += [
            f"| {network}: next start at most 1.0 s | {later:.2f} s | {said(later <= 1.0)} |",
            f"| {network}: cold at most torch.compile's | {first / rival:.2f} x | {said(first <= rival)} |",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--alone", nargs=2, metavar=("NETWORK", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        network, way = arguments.alone
        torch.manual_seed(0)
        print(*WAYS[way](*NETWORKS[network]()))
        return
    text = table()
    print(text)
    if arguments.out is not None:
        write(arguments.out, "Time to the first step", "python -m benchmarks.start", __doc__, text)


if __name__ == "__main__":
    main()
