"""Eager cost of one optimizer update, against torch.optim with foreach=True.

    python -m benchmarks.optimizers [--threads 1]

Each contender updates the same parameters with the same gradients; the figure is the least of several windows, in
microseconds of processor time an update. functrain's update is pure: it writes new parameters and a new state into
fresh memory, where torch's overwrites the old ones. So the third column is torch's update of a copy of parameters and
state, the price of keeping the old ones, and what a pure update can be held against. On the CPU memory is most of the
difference: fresh pages come from the system, several times as slow as writing to warm ones, unless malloc keeps what
was freed (MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_MMAP_THRESHOLD_=4000000000 for glibc).
"""

import argparse
import time
from collections.abc import Callable

import torch

from functrain import optim

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
    "adagrad": (optim.adagrad(), lambda p: torch.optim.Adagrad(p, foreach=True)),
    "adadelta": (optim.adadelta(), lambda p: torch.optim.Adadelta(p, foreach=True)),
    "rmsprop": (optim.rmsprop(), lambda p: torch.optim.RMSprop(p, foreach=True)),
    "rprop": (optim.rprop(), lambda p: torch.optim.Rprop(p, foreach=True)),
    "adafactor": (optim.adafactor(), lambda p: torch.optim.Adafactor(p, foreach=True)),
}


def ours(optimizer: optim.Optimizer, shapes: list[tuple[int, ...]]) -> Callable[[], None]:
    params = {f"p{index:03}": torch.randn(shape) for index, shape in enumerate(shapes)}
    grads = {name: torch.randn_like(leaf) for name, leaf in params.items()}
    held = [params, optimizer.init(params)]

    def step() -> None:
        with torch.no_grad():
            held[:] = optim.step(optimizer, grads, held[1], held[0])

    return step


def torchs(
    make: Callable[..., torch.optim.Optimizer], shapes: list[tuple[int, ...]], *, copies: bool
) -> Callable[[], None]:
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


def microseconds(step: Callable[[], None], window_s: float = 0.2, windows: int = 4) -> float:
    step()
    begin = time.process_time()
    step()
    calls = max(1, int(window_s / max(time.process_time() - begin, 1e-7)))
    best = float("inf")
    for _ in range(windows):
        begin = time.process_time()
        for _ in range(calls):
            step()
        best = min(best, (time.process_time() - begin) / calls)
    return best * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    print(f"{'optimizer':14}" + "".join(f"{size + ': ours, torch, with copy, ratios':>41}" for size in SIZES))
    for name, (optimizer, make) in PAIRS.items():
        cells = []
        for shapes in SIZES.values():
            mine = microseconds(ours(optimizer, shapes))
            theirs, copying = (microseconds(torchs(make, shapes, copies=copies)) for copies in (False, True))
            cells.append(f"{mine:9.0f} {theirs:8.0f} {copying:8.0f} {mine / theirs:6.2f} {mine / copying:5.2f}")
        print(f"{name:14}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
