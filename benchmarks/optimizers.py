"""One eager optimizer update, against torch.optim.   Usage: python -m benchmarks.optimizers [--seconds N] [--out FILE]

Each contender updates the same parameters with the same gradients, in turns; the figure is the least of many, in
microseconds of processor time an update, followed by its ratio to torch's time and to torch's with a copy. functrain's
update (`optim.step`) is pure: it writes new parameters and a new state into fresh memory, where torch's overwrites the
old ones. So the second ratio is to torch's update of a copy of parameters and state, the price of keeping the old ones,
and what a pure update can be held against. On the CPU memory is most of the difference: fresh pages come from the
system, several times as slow as writing to warm ones, unless malloc keeps what was freed
(MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_MMAP_THRESHOLD_=4000000000 for glibc).
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.machine import cpu, load, said, write
from functrain import optim

CALLS = 3  # between two looks at the clock
Step = Callable[[], None]
Make = Callable[..., torch.optim.Optimizer]


class Times(NamedTuple):
    """Microseconds an update."""

    ours: float
    in_place: float
    copying: float


SIZES = {
    "small": [(64, 64), (64,)] * 10,
    "medium": [(256, 256), (256,)] * 20,
    "large": [(1024, 1024), (1024,)] * 8,
}
PAIRS = {
    "sgd": (optim.sgd(1e-3), lambda p: torch.optim.SGD(p, foreach=True)),
    "sgd momentum": (optim.sgd(1e-3, 0.9), lambda p: torch.optim.SGD(p, momentum=0.9, foreach=True)),
    "adam": (optim.adam(), lambda p: torch.optim.Adam(p, foreach=True)),
    "adamw": (optim.adamw(), lambda p: torch.optim.AdamW(p, foreach=True)),
    "nadam": (optim.nadam(), lambda p: torch.optim.NAdam(p, foreach=True)),
    "radam": (optim.radam(), lambda p: torch.optim.RAdam(p, foreach=True)),
    "adamax": (optim.adamax(), lambda p: torch.optim.Adamax(p, foreach=True)),
    "asgd": (optim.asgd(), lambda p: torch.optim.ASGD(p, foreach=True)),
    "adagrad": (optim.adagrad(), lambda p: torch.optim.Adagrad(p, foreach=True)),
    "adadelta": (optim.adadelta(), lambda p: torch.optim.Adadelta(p, foreach=True)),
    "rmsprop": (optim.rmsprop(), lambda p: torch.optim.RMSprop(p, foreach=True)),
    "rprop": (optim.rprop(), lambda p: torch.optim.Rprop(p, foreach=True)),
    "adafactor": (optim.adafactor(), lambda p: torch.optim.Adafactor(p, foreach=True)),
}


def ours(optimizer: optim.Optimizer, shapes: list[tuple[int, ...]]) -> Step:
    params = {f"p{index:03}": torch.randn(shape) for index, shape in enumerate(shapes)}
    grads = {name: torch.randn_like(leaf) for name, leaf in params.items()}
    held = [params, optimizer.init(params)]

    def step() -> None:
        with torch.no_grad():
            held[:] = optim.step(optimizer, grads, held[1], held[0])

    return step


def torchs(make: Make, shapes: list[tuple[int, ...]], *, copies: bool) -> Step:
    params = [torch.randn(shape).requires_grad_() for shape in shapes]
    for leaf in params:
        leaf.grad = torch.randn_like(leaf)
    optimizer = make(params)
    if not copies:
        return optimizer.step
    kept: list[list[torch.Tensor]] = []  # as a user would who wants to go back to the state before

    def step() -> None:
        state = [leaf for slot in optimizer.state.values() for leaf in slot.values() if isinstance(leaf, torch.Tensor)]
        kept[:] = [[leaf.detach().clone() for leaf in (*params, *state)]]
        optimizer.step()

    return step


def microseconds(steps: dict[str, Step], seconds: float) -> dict[str, float]:
    """Processor time of a call of each, in turns, so that all of them see the same machine; the least of many."""
    for step in steps.values():
        step()
    least = dict.fromkeys(steps, float("inf"))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, step in steps.items():
            begin = time.process_time()
            for _ in range(CALLS):
                step()
            least[name] = min(least[name], (time.process_time() - begin) / CALLS)
    return {name: value * 1e6 for name, value in least.items()}


def measure(optimizer: optim.Optimizer, make: Make, shapes: list[tuple[int, ...]], seconds: float) -> Times:
    steps = {"ours": ours(optimizer, shapes)}
    steps |= {name: torchs(make, shapes, copies=name == "copying") for name in ("in_place", "copying")}
    return Times(**microseconds(steps, seconds))


def rows(found: dict[str, dict[str, Times]]) -> Iterator[str]:
    yield "| optimizer | " + " | ".join(f"{size}: us, ratio, to a copy" for size in SIZES) + " |"
    yield "|---|" + "---|" * len(SIZES)
    for name, times in found.items():
        cells = [f"{t.ours:.0f}, {t.ours / t.in_place:.2f}, {t.ours / t.copying:.2f}" for t in times.values()]
        yield f"| {name} | " + " | ".join(cells) + " |"


def goals(found: dict[str, dict[str, Times]]) -> Iterator[str]:
    """Sentences over all rows: the range of the ratios, and how many meet the goal."""
    each = [(f"{name}, {size}", t) for name, times in found.items() for size, t in times.items()]
    for goal, ratios in {
        "torch's in-place update": {case: t.ours / t.in_place for case, t in each},
        "torch's update of a copy": {case: t.ours / t.copying for case, t in each},
    }.items():
        best, worst = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
        met = sum(ratio <= 1 for ratio in ratios.values())
        yield (
            f"No more time than {goal}: {said(met == len(ratios))}, {met} of {len(ratios)} cases; from "
            f"{ratios[best]:.2f} ({best}) to {ratios[worst]:.2f} ({worst}), median "
            f"{statistics.median(ratios.values()):.2f}."
        )


def report(seconds: float, threads: int) -> str:
    torch.set_num_threads(threads)
    shapes = "; ".join(f"{size}: {len(s) // 2} layers of {s[0][0]} x {s[0][1]}" for size, s in SIZES.items())
    about = f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}, {cpu()}, {load()}."
    found = {
        name: {size: measure(optimizer, make, s, seconds) for size, s in SIZES.items()}
        for name, (optimizer, make) in PAIRS.items()
    }
    settings = f"{threads} thread(s), float32. {shapes[0].upper()}{shapes[1:]}."
    return "\n".join([f"{about} {settings}", "", *rows(found), "", *goals(found)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each optimizer and size")
    parser.add_argument("--out", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    text = report(arguments.seconds, arguments.threads)
    print(text)
    if arguments.out is not None:
        command = "python -m benchmarks.optimizers"
        write(arguments.out, "One optimizer update, eager, on the CPU", command, __doc__, text)


if __name__ == "__main__":
    main()
