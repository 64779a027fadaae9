"""From the command to the first step done, for each way: cold, with empty caches of programs, and warm.

Imports the standard library. A start is a process of its own, from its beginning: the imports count, too. Python's
own caches of byte code are there each time. Each run is to make `UPDATES` updates, which `compile="auto"` goes by.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.judge import Contestant
from benchmarks.peers.networks import NETWORKS

UPDATES = 340  # as many as `make demo` makes
STARTED = ("digits", "transformer")


class Start(NamedTuple):
    """Seconds of the first start, and of each one after it."""

    cold: float
    warm: list[float]


Starts = Mapping[str, Mapping[str, Start]]  # network -> way


def starts(network: str, ways: Iterable[str], warm: int, say: Callable[[str], None]) -> dict[str, Start]:
    """One cold start and some warm ones of each way. A way that fails is left out, and said."""
    found = {}
    for way in ways:
        with tempfile.TemporaryDirectory() as folder:
            try:
                cold, *others = (_start(network, way, Path(folder)) for _ in range(1 + warm))
            except RuntimeError as error:
                say(f"{way} does not start and is left out:\n{error}")
                continue
        found[way] = Start(cold, others)
        say(f"{network}: {way} starts in {cold:.1f} s, then in {min(others):.1f} s")
    return found


def _start(network: str, way: str, folder: Path) -> float:
    caches = {
        "FUNCTRAIN_CACHE_DIR": f"{folder}/functrain",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    before = time.perf_counter()
    contestant = Contestant(network, way, UPDATES, 1, environment={**os.environ, **caches})
    try:
        contestant.round()
        return time.perf_counter() - before
    finally:
        contestant.close()


def section(found: Starts) -> Iterator[str]:
    """The lines of a report."""
    yield from ("", "## From the command to the first step done", "")
    yield (
        f"Seconds, imports included, of a run of {UPDATES} updates. Cold: nothing in the caches of compiled programs, "
        "which torch, JAX and functrain each have. Warm: the minimum of the starts after that."
    )
    for network, ways in found.items():
        yield from ("", f"### {NETWORKS[network].title}", "", "| way | cold | warm |", "|---|---|---|")
        for way, start in sorted(ways.items(), key=lambda item: item[1].cold):
            yield f"| {way} | {start.cold:.1f} | {min(start.warm):.1f} |"
