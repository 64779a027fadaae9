"""What transforms of the step take.   Usage: python -m benchmarks.transforms [--rounds 20]

One thread, float32, batches of 64. Each row is timed in turns with the gradient of the whole batch, by the same means
(eager, or compiled); the minimum over the rounds, and its ratio to that gradient. A private update is compared with an
ordinary one. opacus's per-sample gradients are compared with an eager backward pass of the module.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.compiler import runner_for
from functrain.foundation.keys import fold_in
from functrain.step.execution import Core, Runner
from functrain.step.gradient import gradient

BATCH = 64
GRADIENT = Core(lambda state, batch: gradient(state, batch, state.buffers).grads, "gradient", carries_state=False)


def mlp(*widths: int) -> nn.Module:
    layers = [part for pair in itertools.pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class GroupNormCNN(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)),
        )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "64-64-64-10": (lambda: mlp(64, 64, 64, 10), (64,)),
    "784-256-256-10": (lambda: mlp(784, 256, 256, 10), (784,)),
    "CNN, 8x8 images": (GroupNormCNN, (1, 8, 8)),
}


def contestants(name: str, run: Runner) -> dict[str, Callable[[], Any]]:
    """The ways by their names, those they are compared with first."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    state = ft.init_state(make(), ft.classification(), ft.optim.sgd(0.1))
    batch = (torch.randn(BATCH, *shape), torch.randint(10, (BATCH,)))
    private = ft.transforms.private(state, max_grad_norm=1.0, noise_multiplier=1.0, expected_batch_size=BATCH)
    key = partial(fold_in, state.key, "benchmark")
    vector = {name: torch.ones_like(p) for name, p in state.params.items()}
    return {
        "gradient": lambda: run(GRADIENT, state, batch, key=key, device=state.device),
        "update": lambda: ft.train_step(state, batch, run=run),
        "per_sample_gradients": lambda: ft.transforms.per_sample_gradients(state, batch, run=run),
        "per_sample_gradient_norms": lambda: ft.transforms.per_sample_gradient_norms(state, batch, run=run),
        "hvp": lambda: ft.transforms.hvp(state, batch, vector, run=run),
        "private update": lambda: ft.train_step(private, batch, run=run),
    }


def of_opacus(name: str) -> dict[str, Callable[[], Any]]:
    """A backward pass by hand, and opacus's; empty without opacus."""
    try:
        from opacus import GradSampleModule
    except ModuleNotFoundError:
        return {}
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    inputs, labels = torch.randn(BATCH, *shape), torch.randint(10, (BATCH,))
    plain, wrapped = make(), GradSampleModule(make())

    def backward(module: nn.Module) -> None:
        F.cross_entropy(module(inputs), labels).backward()
        for p in module.parameters():
            p.grad = None
            if module is wrapped:
                p.grad_sample = None

    return {"backward by hand": partial(backward, plain), "opacus": partial(backward, wrapped)}


def measure(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Microseconds of each way: the minimum over the rounds, the first two of which do not count."""
    best = dict.fromkeys(ways, float("inf"))
    for number in range(rounds + 2):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number > 1:
                best[name] = min(best[name], time.perf_counter() - start)
    return {name: seconds * 1e6 for name, seconds in best.items()}


def rows(times: dict[str, float], base: str, how: str) -> list[str]:
    """Lines of the table; an update is compared with an update, all else with the gradient."""
    found = []
    for name, value in times.items():
        other = "update" if name == "private update" else base
        found.append(f"| {name} | {how} | {value:.0f} | {value / times[other]:.2f} |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of opacus's hooks
    for name in NETWORKS:
        print(f"\n## {name}\n\n| what | how | us | ratio |\n|---|---|---|---|")
        for how, run in (("eager", runner_for(False)), ("compiled", runner_for(True))):
            print("\n".join(rows(measure(contestants(name, run), rounds), "gradient", how)))
        if theirs := of_opacus(name):
            print("\n".join(rows(measure(theirs, rounds), "backward by hand", "eager")))


if __name__ == "__main__":
    main()
