"""The cost of metrics: in the compiled step of the digits network, and of a ranking of 10,000,000 scores.

python -m benchmarks.metrics
"""

import resource
import time
from collections.abc import Callable
from typing import Any

import torch

import functrain as ft
from functrain import metrics

ASKED = ["accuracy", "f1", "confusion_matrix", "calibration_error"]
SCORES = 10_000_000
REPEATS, STEPS = 15, 200


def main() -> None:
    """Print both tables."""
    print("| step of the digits network (compiled, donated) | us |\n|---|---|")
    plain, measured = _steps()
    print(f"| without metrics | {plain * 1e6:.0f} |")
    print(f"| with {', '.join(ASKED)} | {measured * 1e6:.0f} (+{100 * (measured / plain - 1):.1f} %) |")
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


def _steps() -> tuple[float, float]:
    """The least time of a step, without metrics and with them, the two in turns."""
    runs = [_run(None), _run(ASKED)]
    best = [float("inf"), float("inf")]
    for _ in range(REPEATS):
        for number, run in enumerate(runs):
            best[number] = min(best[number], run())
    return best[0], best[1]


def _run(asked: Any) -> Callable[[], float]:
    torch.manual_seed(0)
    model = ft.models.DigitsCNN(channels=24, dropout=0.4)
    state = ft.init_state(model, ft.classification(), ft.optim.adamw(1e-3), metrics=asked)
    batch = (torch.rand(64, 1, 8, 8), torch.arange(64) % 10)
    step = ft.compile(ft.train_step, donate=True)
    state, _ = step(state, batch)

    def run() -> float:
        nonlocal state
        began = time.perf_counter()
        for _ in range(STEPS):
            state, _ = step(state, batch)
        return (time.perf_counter() - began) / STEPS

    return run


if __name__ == "__main__":
    main()
