"""From the call to the first step done: cold, and the next start.   Usage: python -m benchmarks.start [--out FILE]

Each start is a process of its own; the caches of functrain and of inductor are empty for the first. Time runs from
the call of `fit` (for the loop by hand: of the first step) to the end of the first step. Importing torch and
functrain, and making model and data, come before.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from benchmarks.machine import cpu
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


def fit(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    objective = ft.supervised(F.cross_entropy)
    state = ft.init_state(model, objective, ft.optim.adamw(1e-3))
    start = time.perf_counter()
    ft.fit(state, [batch], steps=1, progress=False)
    return time.perf_counter() - start


def by_hand(model: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    inputs, targets = batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    start = time.perf_counter()
    torch.compile(lambda x, y: F.cross_entropy(model(x), y))(inputs, targets).backward()
    optimizer.step()
    return time.perf_counter() - start


WAYS: dict[str, Callable[[nn.Module, tuple[Tensor, Tensor]], float]] = {
    "functrain: fit": fit,
    "torch by hand: torch.compile on model + loss": by_hand,
}


def starts(network: str, way: str) -> list[float]:
    """Seconds of the first start and of those after it."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {"FUNCTRAIN_CACHE_DIR": f"{folder}/functrain", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
        command = [sys.executable, "-m", "benchmarks.start", "--alone", network, way]
        environment = {**os.environ, **caches}
        return [
            float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
            for _ in range(STARTS)
        ]


def table() -> str:
    lines = [
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, {os.cpu_count()} "
        f"cores. Seconds to the first step done; the next start is the minimum of {STARTS - 1}.",
        "",
        "| network | way | first start | next start |",
        "|---|---|---|---|",
    ]
    for network in NETWORKS:
        for way in WAYS:
            first, *later = starts(network, way)
            lines.append(f"| {network} | {way} | {first:.1f} | {min(later):.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--alone", nargs=2, metavar=("NETWORK", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        network, way = arguments.alone
        torch.manual_seed(0)
        print(WAYS[way](*NETWORKS[network]()))
        return
    text = table()
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("# Time to the first step\n\n`python -m benchmarks.start`\n\n" + text)


if __name__ == "__main__":
    main()
