"""What a state's leaves cost a compiled, donated step.   Usage: python -m benchmarks.leaves [--leaves 40 400 1500]

The body is next to nothing: SGD on one parameter of one element, beside any number of frozen ones. So what grows
from 40 to 400 leaves is the way of each leaf into the program and back, which the host makes. Three figures for each
number of leaves: the program alone, a step by `train_step`, a step within a call of several; least of many windows,
in microseconds a step. The last lines divide the growth by the number of leaves: the goal is at most 1 us a leaf and
step. Compiling for 1,500 takes minutes.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import functrain as ft
from functrain.foundation.trees import copy_tensors, leaves, tensors
from functrain.step.updates import Updates

WINDOWS, STEPS = 200, 10


class Many(nn.Module):
    """A parameter of one element, and so many frozen ones."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.ParameterList(nn.Parameter(torch.ones(1), requires_grad=False) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def contenders(count: int) -> tuple[int, dict[str, Callable[[], None]]]:
    """How many leaves there are, and what is measured, as functions of `STEPS` steps."""
    empty = ft.init_state(Many(0), ft.regression(), ft.optim.sgd(1e-6))
    state = ft.init_state(Many(max(count - len(leaves(empty)), 0)), ft.regression(), ft.optim.sgd(1e-6))
    batch = (torch.ones(4, 1), torch.ones(4, 1))
    step = ft.compile(ft.train_step, donate=True)
    held = [step(copy_tensors(state), batch)[0]]
    (program,) = step.runner._programs.values()
    inputs = [*tensors(held[0]), *batch]

    def alone() -> None:
        for _ in range(STEPS):
            program.run(list(inputs))

    def single() -> None:
        for _ in range(STEPS):
            held[0], _ = step(held[0], batch)

    def in_a_call() -> None:
        updates = Updates(held[0], step.runner)
        for _ in range(STEPS):
            updates(batch, 4)
        held[0] = updates.end()

    return len(leaves(state)), {"program alone": alone, "train_step": single, "within a call": in_a_call}


def microseconds(run: Callable[[], None]) -> float:
    best = float("inf")
    for _ in range(WINDOWS):
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best / STEPS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, nargs="+", default=[40, 400])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found: dict[int, dict[str, float]] = {}
    for count in arguments.leaves:
        number, runs = contenders(count)
        found[number] = {name: microseconds(run) for name, run in runs.items()}
        print(f"{number:5} leaves  " + "  ".join(f"{name} {value:8.1f}" for name, value in found[number].items()))
    few, many = min(found), max(found)
    if few < many:
        for name, value in found[many].items():
            print(f"{name}: {(value - found[few][name]) / (many - few):.3f} us a leaf and step")


if __name__ == "__main__":
    main()
