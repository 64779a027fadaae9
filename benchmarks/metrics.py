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
from functrain.step.state import TrainState
from functrain.step.updates import Updates

ASKED = ["accuracy", "f1", "confusion_matrix", "calibration_error"]
SCORES = 10_000_000
STEPS = 1500


def main() -> None:
    """Print both tables."""
    print("| update of the digits network (compiled, donated) | us | CPU us | more |\n|---|---|---|---|")
    for name, wall, cpu, more in _steps():
        print(f"| {name} | {wall * 1e6:.0f} | {cpu * 1e6:.0f} | {100 * more:+.1f} % |")
    print("\n| 10,000,000 scores | value | seconds | MB above the scores and targets |\n|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(SCORES, generator=generator)
    targets = torch.randint(0, 2, (SCORES,), generator=generator, dtype=torch.uint8)
    for name in ("auroc", "auprc", "recall_at_fpr"):
        before, began = _peak(), time.perf_counter()
        value = metrics.REGISTRY[name]()(scores, targets)
        print(f"| {name} | {value:.9f} | {time.perf_counter() - began:.1f} | {_peak() - before:.0f} |")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _steps() -> list[tuple[str, float, float, float]]:
    """Names, the median times of an update on the clock and of the CPU, and how much more CPU time than the first.

    The runs take turns after each update, so that a busy machine slows all of them alike.
    """
    asked = ", ".join(ASKED)
    runs = {
        "no metrics": _run(None),
        f"{asked}: as `fit` runs it, which names values where it records them": _run(ASKED),
        f"{asked}: as `train_step`, a dict of 108 values": _single(ASKED),
        "no metrics, as `train_step`": _single(None),
    }
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(STEPS):
        for name, run in runs.items():
            began, busy = time.perf_counter(), time.process_time()
            run()
            cpu[name].append(time.process_time() - busy)
            wall[name].append(time.perf_counter() - began)
    plain = statistics.median(cpu["no metrics"])
    medians = {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in runs}
    return [(name, *times, times[1] / plain - 1) for name, times in medians.items()]


def _state(asked: Any) -> tuple[TrainState, Any]:
    torch.manual_seed(0)
    model = ft.models.DigitsCNN(channels=24, dropout=0.4)
    batch = (torch.rand(64, 1, 8, 8), torch.arange(64) % 10)
    return ft.init_state(model, ft.classification(), ft.optim.adamw(1e-3), metrics=asked), batch


def _single(asked: Any) -> Callable[[], Any]:
    state, batch = _state(asked)
    step = ft.compile(ft.train_step, donate=True)

    def run() -> None:
        nonlocal state
        state, _ = step(state, batch)

    run()
    return run


def _run(asked: Any) -> Callable[[], Any]:
    state, batch = _state(asked)
    step = ft.compile(ft.train_step, donate=True)
    state, _ = step(state, batch)  # room for the metrics
    updates = Updates(state, step.runner)
    return lambda: updates(batch)


if __name__ == "__main__":
    main()
