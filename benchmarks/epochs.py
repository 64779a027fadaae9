"""The seconds of each epoch of a run, from its first batch to its last update."""

import time
from typing import Any

import functrain as ft


def timed(state: ft.TrainState, loader: Any, epochs: int, *, compile: bool) -> tuple[list[float], ft.FitResult]:
    """Train; the seconds of each epoch without evaluation, logs and checkpoints, and the result."""
    seconds: list[float] = []

    @ft.on("before_epoch")
    def before(_event: ft.Event) -> None:
        seconds.append(-time.perf_counter())

    @ft.on("after_epoch")
    def after(_event: ft.Event) -> None:
        seconds[-1] += time.perf_counter()

    result = ft.fit(state, loader, epochs=epochs, compile=compile, callbacks=[before, after], progress=False)
    return seconds, result
