"""The cost of metrics: in the compiled step of the digits network, and of a ranking of 10,000,000 scores.

python -m benchmarks.metrics
"""

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import functrain as ft
from functrain import metrics
from functrain.step.evaluate import EVALUATE
from functrain.step.state import TrainState
from functrain.step.updates import Updates

ASKED = ["accuracy", "f1", "confusion_matrix", "calibration_error"]
SCORES = 10_000_000
STEPS = 1500
BATCHES = 10  # of an evaluation


def main() -> None:
    """Print the tables."""
    for title, runs, repeated in (
        ("update of the digits network (compiled, donated)", _updates(), STEPS),
        ("evaluation of a batch by the digits network (compiled)", _evaluations(), STEPS // BATCHES),
    ):
        print(f"| {title} | us | CPU us | more |\n|---|---|---|---|")
        for name, wall, cpu, more in _times(runs, repeated):
            print(f"| {name} | {wall * 1e6:.0f} | {cpu * 1e6:.0f} | {100 * more:+.1f} % |")
        print()
    print("| 10,000,000 scores | value | seconds | MB above the scores and targets |\n|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(SCORES, generator=generator)
    targets = torch.randint(0, 2, (SCORES,), generator=generator, dtype=torch.uint8)
    for name in ("auroc", "auprc", "recall_at_fpr"):
        before, began = _peak(), time.perf_counter()
        value = metrics.REGISTRY[name]()(scores, targets)
        print(f"| {name} | {value:.9f} | {time.perf_counter() - began:.1f} | {_peak() - before:.0f} |")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _times(runs: dict[str, Callable[[], int]], repeated: int) -> list[tuple[str, float, float, float]]:
    """Names, the median times of a step on the clock and of the CPU, and how much more CPU time than the first.

    The runs take turns, so that a busy machine slows all of them alike. Each returns how many steps it took.
    """
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeated):
        for name, run in runs.items():
            began, busy = time.perf_counter(), time.process_time()
            steps = run()
            cpu[name].append((time.process_time() - busy) / steps)
            wall[name].append((time.perf_counter() - began) / steps)
    medians = {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in runs}
    plain = next(iter(medians.values()))[1]
    return [(name, *times, times[1] / plain - 1) for name, times in medians.items()]


def _updates() -> dict[str, Callable[[], int]]:
    asked = ", ".join(ASKED)
    return {
        "no metrics": _run(None),
        f"{asked}: as `fit` runs it, which names values where it records them": _run(ASKED),
        f"{asked}: as `train_step`, a dict of 108 values": _single(ASKED),
        "no metrics, as `train_step`": _single(None),
    }


def _evaluations() -> dict[str, Callable[[], int]]:
    return {"no metrics": _evaluation(None), ", ".join(ASKED): _evaluation(ASKED)}


def _state(asked: Any) -> tuple[TrainState, Any]:
    torch.manual_seed(0)
    model = ft.models.DigitsCNN(channels=24, dropout=0.4)
    batch = (torch.rand(64, 1, 8, 8), torch.arange(64) % 10)
    return ft.init_state(model, ft.classification(), ft.optim.adamw(1e-3), metrics=asked), batch


def _single(asked: Any) -> Callable[[], int]:
    state, batch = _state(asked)
    step = ft.compile(ft.train_step, donate=True)

    def run() -> int:
        nonlocal state
        state, _ = step(state, batch)
        return 1

    run()
    return run


def _run(asked: Any) -> Callable[[], int]:
    state, batch = _state(asked)
    step = ft.compile(ft.train_step, donate=True)
    state, _ = step(state, batch)  # room for the metrics
    updates = Updates(state, step.runner)

    def run() -> int:
        updates(batch)
        return 1

    return run


def _evaluation(asked: Any) -> Callable[[], int]:
    """As an evaluation runs it: several batches of one state."""
    state, batch = _state(asked)
    runner = ft.compile(ft.eval_step).runner

    def run() -> int:
        found = runner.each(EVALUATE, state, [batch] * BATCHES, key=lambda: 0, device=state.device)
        return len(list(found.results))

    run()
    return run


if __name__ == "__main__":
    main()
