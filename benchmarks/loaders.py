"""What `fit` takes with each kind of loader.   Usage: python -m benchmarks.loaders [--rounds 10] [--workers 2]

Tiny network (64-64-64-10, batch 32, AdamW), one thread. In turns, an epoch each: `fit` over the loader, and the loop
that a careful user writes by hand over the same loader (eager, torch's fused AdamW). Minimum over the rounds, in
microseconds a step. "read" is the same loader read by functrain without training.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import functrain as ft
from functrain.data import as_stream

STEPS, BATCH = 100, 32


class Rows(Dataset[Any]):
    """One's own map-style data set, which draws nothing."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]


class Noisy(Rows):
    """The same with noise on each example."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index] + torch.randn(64), self.targets[index]


class Iterable:
    """One's own loader of whole batches."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (batch for batch in self.batches)


class Stateful(Iterable):
    """The same with a state."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__(batches)
        self.position = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.position %= len(self.batches)
        while self.position < len(self.batches):
            self.position += 1
            yield self.batches[self.position - 1]

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def loaders(workers: int) -> dict[str, Any]:
    """A loader of each kind over the same examples."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(STEPS * BATCH, 64), torch.randint(0, 10, (STEPS * BATCH,))
    batches = list(zip(inputs.split(BATCH), targets.split(BATCH)))
    return {
        "Loader(Arrays)": ft.data.Loader(ft.data.Arrays(inputs, targets), BATCH),
        "DataLoader(TensorDataset)": DataLoader(TensorDataset(inputs, targets), BATCH, shuffle=True),
        "DataLoader(own data set)": DataLoader(Rows(inputs, targets), BATCH, shuffle=True),
        "DataLoader(own data set with noise)": DataLoader(Noisy(inputs, targets), BATCH, shuffle=True),
        f"DataLoader(own data set), {workers} workers": DataLoader(
            Rows(inputs, targets), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        ),
        "a list of batches": batches,
        "an iterable": Iterable(batches),
        "a loader with state_dict": Stateful(batches),
    }


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def by_hand(loader: Any) -> Callable[[], None]:
    """An epoch of the loop by hand."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)

    def epoch() -> None:
        for inputs, targets in loader:
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


def measure(loader: Any, rounds: int) -> dict[str, float]:
    """Microseconds a step: of `fit`, of the loop by hand, of reading alone."""
    hand, stream = by_hand(loader), as_stream(loader, key=0)
    times: dict[str, list[float]] = {"fit": [], "by hand": [], "read": []}
    start = [0.0]

    def note(name: str) -> None:
        times[name].append((time.perf_counter() - start[0]) / STEPS * 1e6)
        start[0] = time.perf_counter()

    @ft.on("before_epoch")
    def before(_event: ft.Event) -> None:
        start[0] = time.perf_counter()
        hand()
        note("by hand")
        for _ in stream.batches(0):
            pass
        note("read")

    @ft.on("after_epoch")
    def after(_event: ft.Event) -> None:
        note("fit")

    state = ft.init_state(network(), ft.classification(), ft.optim.adamw(1e-3))
    ft.fit(state, loader, epochs=rounds + 2, compile=True, progress=False, callbacks=[before, after])
    stream.close()
    return {name: min(values[2:]) for name, values in times.items()}  # the first compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| loader | fit | by hand | ratio | read |\n|---|---|---|---|---|")
    for name, loader in loaders(options.workers).items():
        found = measure(loader, options.rounds)
        ratio = found["fit"] / found["by hand"]
        print(
            f"| {name} | {found['fit']:.0f} | {found['by hand']:.0f} | {ratio:.2f} | {found['read']:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
