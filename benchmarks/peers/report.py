"""The table, the goals and the plot. Imports the standard library; matplotlib for the plot."""

import platform
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

from benchmarks.machine import cpu
from benchmarks.peers.networks import NETWORKS

Times = Mapping[str, Mapping[str, list[float]]]  # network -> way -> seconds per step, of each round

FIT, STEP, JAX = "functrain.fit", "functrain: compiled step alone, donated", "jax.jit + optax, donated"
COMPILED = "torch by hand, torch.compile on model + loss"
TORCH = ("torch by hand, eager", COMPILED, "Ignite", "Accelerate", "Lightning", "HF Trainer")
PACKAGES = ("torch", "jax", "optax", "lightning", "accelerate", "transformers", "pytorch-ignite", "numpy")


@dataclass(frozen=True)
class Goal:
    """What was to be reached, and what was: the smaller the ratio the better."""

    text: str
    found: str
    met: bool


def markdown(times: Times, rounds: int, steps: int | None, absent: list[str], plot: str | None, load: str) -> str:
    lines = [f"`make bench-peers` with {rounds} rounds.", "", _circumstances(load), ""]
    lines += [f"Not installed, so not compared: {', '.join(absent)}.", ""] if absent else []
    lines += [f"![time per step]({plot})", ""] if plot is not None else []
    lines += ["## Goals", "", "| goal | found | |", "|---|---|---|"]
    lines += [f"| {goal.text} | {goal.found} | {'met' if goal.met else '**missed**'} |" for goal in goals(times)]
    for name, ways in times.items():
        network = NETWORKS[name]
        lines += ["", f"## {network.title}", "", f"{steps or network.steps} steps a round.", ""]
        lines += [f"| us a step | min | median | this / {FIT} (min) |", "|---|---|---|---|"]
        lines += _rows(ways)
    return "\n".join(lines) + "\n"


def _circumstances(load: str) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES if _has(name))
    return (
        f"{date.today()}, Python {platform.python_version()}, {versions}; {cpu()}, {load}. Same model, data in memory, "
        "shuffled, AdamW (torch's fused one where it is torch's). Each way in a process of its own, all alive at once, "
        "taking turns round by round; minimum and median over the rounds, the first (it compiles) left out. Logs and "
        "checkpoints are off for all; `functrain.fit` has its loader, metrics and progress display on, the others' "
        "displays and metrics are off; it alone refuses updates that are not finite (refuse_nonfinite=False does not). "
        "Frameworks get ready batches by index, so that none pays for putting examples "
        "together."
    )


def _rows(ways: Mapping[str, list[float]]) -> Iterator[str]:
    reference = min(ways[FIT]) if FIT in ways else None
    for way, values in sorted(ways.items(), key=lambda item: min(item[1])):
        ratio = "" if reference is None else f"{min(values) / reference:.2f}"
        yield f"| {way} | {_us(min(values))} | {_us(statistics.median(values))} | {ratio} |"


def goals(times: Times) -> Iterator[Goal]:
    """The goals that these figures decide."""
    best = {name: {way: min(values) for way, values in ways.items()} for name, ways in times.items()}
    tiny = best.get("tiny", {})
    if FIT in tiny and JAX in tiny:
        ratio = tiny[FIT] / tiny[JAX]
        yield Goal("tiny: `fit` at most 1.0 x JAX's own minimal loop", f"{ratio:.2f} x", ratio <= 1.0)
    if FIT in tiny and any(way in tiny for way in TORCH):
        fastest = min((way for way in TORCH if way in tiny), key=lambda way: tiny[way])
        ratio = tiny[fastest] / tiny[FIT]
        yield Goal(
            "tiny: `fit` at least 4 x faster than the fastest PyTorch loop", f"{ratio:.1f} x ({fastest})", ratio >= 4
        )
    if FIT in tiny and STEP in tiny:
        added = (tiny[FIT] - tiny[STEP]) * 1e6
        yield Goal("tiny: `fit` adds at most 10 us to the bare compiled step", f"{added:.0f} us", added <= 10)
    for name, ways in best.items():
        rivals = [way for way in (COMPILED, JAX) if way in ways]
        if name == "tiny" or FIT not in ways or not rivals:
            continue
        rival = min(rivals, key=lambda way: ways[way])
        ratio = ways[FIT] / ways[rival]
        yield Goal(
            f"{name}: `fit` at least as fast as the best of torch.compile by hand and JAX",
            f"{ratio:.2f} x the time of {rival}",
            ratio <= 1.0,
        )


def draw(times: Times, path: Path) -> None:
    """Bars of the minima, a panel for each network."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "functrain"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(times), 1, figsize=(9, 2.9 * len(times)), squeeze=False, layout="constrained")
    for axis, (name, ways) in zip(axes[:, 0], times.items()):
        ordered = sorted(ways, key=lambda way: -min(ways[way]))
        values = [min(ways[way]) * 1e6 for way in ordered]
        colours = ["#1f77b4" if way.startswith("functrain") else "#b0b0b0" for way in ordered]
        bars = axis.barh(ordered, values, color=colours)
        axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=8)
        axis.set_title(NETWORKS[name].title, fontsize=10, loc="left")
        axis.set_xlabel("us a step, minimum over the rounds (less is better)", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-4 else f"{seconds * 1e6:.1f}"


def _has(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
