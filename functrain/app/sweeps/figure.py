"""The figure of a sweep: the best value of the metric over each key that was searched."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from functrain.app.config.yaml_text import dump_flow
from functrain.app.sweeps.plan import Member, settings
from functrain.app.sweeps.points import columns
from functrain.app.sweeps.results import PRUNED, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From the palette of Okabe and Ito, which people with any colour vision can tell apart.
TRAINED, PRUNED_COLOR, BEST = "#0072B2", "#E69F00", "#D55E00"
PANELS = 3  # in a row
LOG_FROM = 50.0  # the highest value over the lowest, below which no axis is logarithmic
LONGEST = 14  # characters of a tick's label


def draw(
    members: Sequence[Member], statuses: Mapping[str, str], results: Mapping[str, Result], best: Member, path: Path
) -> None:
    """Draw a panel for each key; each member with a value is a point in each of them.

    Args:
        members: of the sweep.
        statuses, results: of each, by name.
        best: the member to point out.
        path: the image to write.

    Raises:
        ModuleNotFoundError: without matplotlib.
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [member for member in members if _is_finite(results[member.name].best)]
    keys = columns([settings(member) for member in shown])
    across = min(len(keys), PANELS)
    down = -(-len(keys) // PANELS)
    figure = Figure(figsize=(3.8 * across + 0.4, 3.2 * down + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for place, key in enumerate(keys, 1):
        axes = figure.add_subplot(down, across, place)
        mine = [member for member in shown if key in settings(member)]
        _draw(axes, key, mine, statuses, results, best)
        if (place - 1) % PANELS == 0:
            axes.set_ylabel(f"best {results[best.name].metric}", fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", dpi=150)
    os.replace(temporary, path)


def _draw(
    axes: "Axes",
    key: str,
    members: Sequence[Member],
    statuses: Mapping[str, str],
    results: Mapping[str, Result],
    best: Member,
) -> None:
    values = [settings(member)[key] for member in members]
    places, names = _places(values)
    heights = [results[member.name].best or 0.0 for member in members]
    pruned = [statuses[member.name] == PRUNED for member in members]
    for which, label, color, marker in ((False, "trained", TRAINED, "o"), (True, PRUNED, PRUNED_COLOR, "x")):
        points = [(place, height) for place, height, out in zip(places, heights, pruned, strict=True) if out == which]
        if points:
            across, up = zip(*points)
            axes.scatter(across, up, s=28, color=color, marker=marker, alpha=0.8, label=label, zorder=2)
    if best in members:
        index = members.index(best)
        axes.scatter(
            places[index], heights[index], s=130, facecolors="none", edgecolors=BEST, linewidths=1.8, label="best",
            zorder=3,
        )  # fmt: skip
    if names:
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        if max(map(len, names)) * len(names) > 30:
            axes.tick_params(axis="x", rotation=30)
    elif _spreads_over_magnitudes(places):
        axes.set_xscale("log")
    axes.set_xlabel(key, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _places(values: Sequence[Any]) -> tuple[list[float], list[str]]:
    """Where values stand on an axis; and, if they are no numbers or few, their names at 0, 1, 2, ..."""
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if numeric and len(set(values)) > 6:
        return [float(value) for value in values], []
    texts = [value if isinstance(value, str) else dump_flow(value) for value in values]
    ordered = [texts[values.index(value)] for value in sorted(values)] if numeric else texts
    names = list(dict.fromkeys(ordered))
    shown = [name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..." for name in names]
    return [float(names.index(text)) for text in texts], shown


def _spreads_over_magnitudes(places: Sequence[float]) -> bool:
    """Whether numbers are told apart on a logarithmic axis only: most of them are small beside the largest.

    Example:
        >>> _spreads_over_magnitudes([1e-4, 1e-3, 1e-2, 1e-1]), _spreads_over_magnitudes([0.002, 0.2, 0.3, 0.5])
        (True, False)
    """
    low, high = min(places), max(places)
    return low > 0 and high / low >= LOG_FROM and statistics.median(places) < high / 4


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
