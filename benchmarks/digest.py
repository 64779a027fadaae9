"""The share of an epoch that the digest of the state takes.   Usage: python -m benchmarks.digest [--epochs 20]

The demo's network (DigitsCNN of 24 channels, AdamW, batch 64, 17 steps an epoch), one process, compiled and eager. Each
epoch is timed between its events, without evaluation, logs and checkpoints; then the digest of the state that it ended
with, as often. Medians.
"""

import argparse
import statistics
import time

import functrain as ft
from benchmarks.epochs import timed
from functrain.data import Loader, digits
from functrain.models import DigitsCNN


def measure(epochs: int, compile: bool) -> tuple[float, float]:
    """Seconds of an epoch, and of a digest."""
    state = ft.init_state(DigitsCNN(channels=24), ft.classification(), ft.optim.adamw(1e-2))
    loader = Loader(digits("train"), batch_size=64, shuffle=True)
    seconds, result = timed(state, loader, epochs, compile=compile)
    state = result.state
    digests = []
    for _ in range(epochs):
        start = time.perf_counter()
        ft.digest(state)
        digests.append(time.perf_counter() - start)
    return statistics.median(seconds[2:]), statistics.median(digests)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    epochs = parser.parse_args().epochs
    print("| step | epoch, ms | digest, ms | share |\n|---|---|---|---|")
    for name, compile in (("compiled", True), ("eager", False)):
        epoch, one = measure(epochs, compile)
        print(f"| {name} | {epoch * 1e3:.1f} | {one * 1e3:.2f} | {one / epoch:.2%} |", flush=True)


if __name__ == "__main__":
    main()
