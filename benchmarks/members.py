"""N members in one stack against the same members one after another, in `fit`, compiled, in one run.

    python -m benchmarks.members [--rounds 2] [CASE ...]

Microseconds of a member and update, in the fastest epoch of all rounds, which take turns. Members differ in their
learning rate and see the same batches.
"""

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

import functrain as ft
from benchmarks.epochs import timed

EPOCHS, BATCH, MOST_UNROLLED = 12, 32, 16


def mlp(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 16, 10)),
    )


class Attention(nn.Module):
    """A block of attention over 16 tokens of 16 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.block(x).mean(1))


CASES: dict[str, tuple[int, Callable[[], nn.Module], tuple[int, ...], Any]] = {
    "64 x (8-16-1)": (64, lambda: mlp(8, 16, 1), (8,), "regression"),
    "64 x (64-64-64-10)": (64, lambda: mlp(64, 64, 64, 10), (64,), "classification"),
    "8 x digits CNN": (8, cnn, (8, 8), "classification"),
    "8 x attention block": (8, Attention, (16, 16), "classification"),
}


def examples(shape: tuple[int, ...], task: str) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1280, *shape, generator=generator)
    if task == "regression":
        return TensorDataset(inputs, torch.randn(1280, 1, generator=generator))
    targets = torch.randint(10, (1280,), generator=generator)
    return TensorDataset(inputs, targets)


def states(count: int, make: Callable[[], nn.Module], task: str) -> list[Any]:
    found = []
    for number in range(count):
        torch.manual_seed(number)
        found.append(ft.init_state(make(), getattr(ft, task)(), ft.optim.adamw(1e-3 * (1 + number / count)), seed=0))
    return found


def epoch_seconds(state: Any, loader: Any) -> float:
    """The shortest epoch; the first two compile and warm up."""
    return min(timed(state, loader, EPOCHS, compile=True)[0][2:])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print("| members | alone | vectorised | unrolled | alone / best form |\n|---|---|---|---|---|")
    for name in arguments.cases:
        count, make, shape, task = CASES[name]
        data = examples(shape, task)
        loader, members = ft.data.Loader(data, batch_size=BATCH, shuffle=True), states(count, make, task)
        given = {"alone": members[0], "vectorised": ft.stack(members, vectorize=True)}
        if count <= MOST_UNROLLED:
            given["unrolled"] = ft.stack(members, vectorize=False)
        found: dict[str, list[float]] = {form: [] for form in given}
        for _ in range(arguments.rounds):
            for form, state in given.items():
                found[form].append(epoch_seconds(state, loader) / (1 if form == "alone" else count))
        us = {form: 1e6 * min(seconds) / (len(data) // BATCH) for form, seconds in found.items()}
        best = min(value for form, value in us.items() if form != "alone")
        cells = [f"{us[form]:.1f}" if form in us else "-" for form in ("alone", "vectorised", "unrolled")]
        print(f"| {' | '.join([name, *cells, format(us['alone'] / best, '.1f')])} |", flush=True)


if __name__ == "__main__":
    main()
