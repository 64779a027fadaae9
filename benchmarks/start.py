"""From the call to the first step done: cold, and the next start.   Usage: python -m benchmarks.start [--out FILE]

Each start is a process of its own; the caches of functrain and of inductor are empty for the first. Time runs from
the call of `fit` (for the loop by hand: of the first step) to the end of the first step. Importing torch and
functrain, and making model and data, come before; "from the command" they count, from the start of the process on.

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
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from benchmarks.machine import cpu, load, said, write
from functrain.models import DigitsCNN

STARTS = 4
UPDATES = 340


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


@ft.on("after_step")
def stop(_event: ft.Event) -> ft.Stop:
    return ft.Stop()


def fit(model: nn.Module, batch: tuple[Tensor, Tensor], compile: bool | Literal["auto"] = True) -> tuple[float, str]:
    """The first step of a run of so many updates as `make demo` makes."""
    objective = ft.supervised(F.cross_entropy)
    state = ft.init_state(model, objective, ft.optim.adamw(1e-3))
    start = time.perf_counter()
    state = ft.fit(state, [batch], epochs=UPDATES, compile=compile, callbacks=[stop]).state
    return time.perf_counter() - start, digest(state.params.values())


def by_hand(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[float, str]:
    inputs, targets = batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    start = time.perf_counter()
    torch.compile(lambda x, y: F.cross_entropy(model(x), y))(inputs, targets).backward()
    optimizer.step()
    return time.perf_counter() - start, digest(model.parameters())


FIT, BY_HAND = "functrain: fit, compile=True", "torch by hand: torch.compile on model + loss"
WAYS: dict[str, Callable[[nn.Module, tuple[Tensor, Tensor]], tuple[float, str]]] = {
    'functrain: fit, compile="auto"': partial(fit, compile="auto"),
    FIT: fit,
    "functrain: fit, compile=False": partial(fit, compile=False),
    BY_HAND: by_hand,
}


class Seconds(NamedTuple):
    """Of a start."""

    from_call: float
    from_command: float


def starts(network: str, way: str) -> tuple[list[Seconds], set[str]]:
    """The first start and those after it, and the digests of their steps."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {"FUNCTRAIN_CACHE_DIR": f"{folder}/functrain", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
        command = [sys.executable, "-m", "benchmarks.start", "--alone", network, way]
        environment = {**os.environ, **caches}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each start compiles all of its Python sources
        found, digests = [], set()
        for _ in range(STARTS):
            before = time.time()
            result = subprocess.run(command, capture_output=True, text=True, env=environment)
            if result.returncode:
                raise RuntimeError(f"{network}, {way}:\n{result.stderr[-2000:]}")
            taken, made, ended = result.stdout.split()
            found.append(Seconds(float(taken), float(ended) - before))
            print(f"{network}, {way}: {found[-1].from_call:.2f} s", file=sys.stderr, flush=True)
            digests.add(made)
        return found, digests


def table() -> str:
    lines = [
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, {load()}. "
        f"Seconds to the first step done; the next start is the minimum of {STARTS - 1}.",
        "",
        "| network | way | first start | next start | from the command: first | next | all starts' steps |",
        "|---|---|---|---|---|---|---|",
    ]
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for network in NETWORKS:
        for way in WAYS:
            (first, *later), digests = starts(network, way)
            found[network, way] = first.from_call, min(each.from_call for each in later)
            commands = first.from_command, min(each.from_command for each in later)
            same = "bit for bit the same" if len(digests) == 1 else "**differ**"
            seconds = [f"{each:.{places}f}" for each, places in zip((*found[network, way], *commands), (1, 2, 1, 1))]
            lines.append(f"| {network} | {way} | {' | '.join(seconds)} | {same} |")
    lines += ["", "| goal | found | |", "|---|---|---|"]
    for network in NETWORKS:
        (cold, later), rival = found[network, FIT], found[network, BY_HAND][0]
        lines += [
            f"| {network}: next start at most 1.0 s | {later:.2f} s | {said(later <= 1.0)} |",
            f"| {network}: cold at most torch.compile's | {cold / rival:.2f} x | {said(cold <= rival)} |",
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
        print(*WAYS[way](*NETWORKS[network]()), time.time())
        return
    text = table()
    print(text)
    if arguments.out is not None:
        write(arguments.out, "Time to the first step", "python -m benchmarks.start", __doc__, text)


if __name__ == "__main__":
    main()
