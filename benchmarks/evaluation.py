"""What `evaluate` and `predict` take beside loops by hand.   Usage: python -m benchmarks.evaluation [--rounds 5]

Batches of 64 in memory, one thread: 20,000 images of the digits' size through `DigitsCNN`, and 100,000 rows of 64
through a tiny network (64-64-64-10). By hand is an eager loop within `torch.inference_mode()`, over slices, that adds
up loss and accuracy. In turns; the minimum over the rounds, in microseconds a batch. "start" is what a compiled call
takes besides, of which one batch alone tells: it looks its program up in the store.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain.models import DigitsCNN

BATCH = 64
Batches = list[tuple[Tensor, Tensor]]


def tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "digits": (DigitsCNN, (20_000, 1, 8, 8)),
    "tiny": (tiny, (100_000, 64)),
}


def evaluate_by_hand(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.eval()
    loss, right, examples = torch.zeros(()), torch.zeros((), dtype=torch.int64), 0
    with torch.inference_mode():
        for inputs, targets in batches:
            logits = model(inputs)
            loss += F.cross_entropy(logits, targets, reduction="sum")
            right += (logits.argmax(1) == targets).sum()
            examples += len(targets)
    return loss.item() / examples, right.item() / examples


def predict_by_hand(model: nn.Module, batches: Batches) -> Tensor:
    """All outputs."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(inputs) for inputs, _ in batches])


def contestants(name: str, examples: int | None = None) -> tuple[dict[str, Callable[[], Any]], int]:
    """The ways by their names, and how many batches each goes through."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    inputs = torch.randn(examples or shape[0], *shape[1:])
    targets = torch.randint(0, 10, (len(inputs),))
    model, batches = make(), list(zip(inputs.split(BATCH), targets.split(BATCH)))
    loader = ft.data.Loader(ft.data.Arrays(inputs, targets), BATCH, shuffle=False)
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.1))
    ways: dict[str, Callable[[], Any]] = {
        "evaluate by hand": partial(evaluate_by_hand, model, batches),
        "evaluate": partial(ft.evaluate, state, loader),
        "evaluate, a list": partial(ft.evaluate, state, batches),
        "evaluate, compiled": partial(ft.evaluate, state, loader, compile=True),
        "evaluate, compiled: start": partial(ft.evaluate, state, batches[:1], compile=True),
        "predict by hand": partial(predict_by_hand, model, batches),
        "predict": partial(ft.predict, state, loader),
        "predict, compiled": partial(ft.predict, state, loader, compile=True),
        "predict, compiled: start": partial(ft.predict, state, batches[:1], compile=True),
    }
    return ways, len(batches)


def measure(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each way: the minimum over the rounds, the first of which compiles and does not count."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            times[way].append(time.perf_counter() - start)
    return {way: min(values[1:]) for way, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examples", type=int, help="in place of 20,000 and 100,000 (to try it out)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | way | us a batch | of the loop by hand | without the start |\n|---|---|---|---|---|")
    for name in options.networks:
        ways, batches = contestants(name, options.examples)
        found = measure(ways, options.rounds)
        for way, seconds in found.items():
            hand = found[f"{way.split()[0].rstrip(',')} by hand"]
            started = found.get(f"{way}: start")
            rest = "" if started is None else f"{(seconds - started) / hand:.2f}"
            if not way.endswith("start"):
                print(f"| {name} | {way} | {seconds / batches * 1e6:.0f} | {seconds / hand:.2f} | {rest} |", flush=True)
            else:
                print(f"| {name} | {way} | {seconds * 1e3:.0f} ms in all | | |", flush=True)


if __name__ == "__main__":
    main()
