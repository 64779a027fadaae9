"""Memory and time of activation checkpointing.   Usage: python -m benchmarks.activation_checkpointing [--out FILE]

A transformer of 4 blocks trains on one batch: eager and compiled (donated), with every block checkpointed and without.
Each variant is a process of its own. Peak memory is the largest resident set after the first step (which compiles, or
warms up, and is not counted) above the resting state before it; compiled programs come from the store.
"""

import argparse
import ctypes
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from benchmarks.machine import cpu

BATCH, TOKENS, WIDTH, HEADS, BLOCKS, VOCABULARY = 8, 256, 128, 4, 4, 256
STEPS = 6
VARIANTS = ("eager", "eager checkpointed", "compiled", "compiled checkpointed")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).view(*x.shape[:2], 3, HEADS, -1).transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.out(mixed)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embedding(tokens)))


def memory(field: str) -> float:
    """In MiB: VmRSS is now, VmHWM the largest so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def run_alone(variant: str) -> None:
    """Print peak memory above rest, and the time of each step."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a second one waits for its turn on a busy machine
    patterns = ("blocks.*",) if variant.endswith("checkpointed") else ()
    state = ft.init_state(
        Transformer(), ft.language_modelling(), ft.optim.adamw(1e-3), activation_checkpointing=patterns
    )
    step = ft.compile(ft.train_step, donate=True) if variant.startswith("compiled") else ft.train_step
    tokens = torch.randint(0, VOCABULARY, (BATCH, TOKENS + 1))
    batch = (tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    state, _ = step(state, batch)
    ctypes.CDLL(None).malloc_trim(0)  # else what the first step had taken would be part of the rest
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    rest, seconds = memory("VmRSS"), []
    for _ in range(STEPS):
        before = time.perf_counter()
        state, metrics = step(state, batch)
        seconds.append(time.perf_counter() - before)
    print(memory("VmHWM") - rest, metrics["loss"].item(), *seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--alone", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        run_alone(arguments.alone)
        return
    lines = [
        f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, "
        f"{os.cpu_count()} cores. {BLOCKS} blocks of width {WIDTH}, batch {BATCH} x {TOKENS} tokens, AdamW, 1 thread; "
        f"{STEPS} steps.",
        "",
        "| variant | MiB above rest | ms a step (min) | (median) | last loss |",
        "|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        command = [sys.executable, "-m", "benchmarks.activation_checkpointing", "--alone", variant]
        subprocess.run(command, capture_output=True, check=True)  # fills the store
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, loss, *seconds = map(float, done.stdout.split())
        lines.append(
            f"| {variant} | {peak:.0f} | {1e3 * min(seconds):.0f} | {1e3 * statistics.median(seconds):.0f} | {loss!r} |"
        )
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
