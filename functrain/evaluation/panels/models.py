"""Several models side by side: bars of a metric, and ROC curves of which each is a mean over classes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation import rankings
from functrain.evaluation.bootstrap import Interval
from functrain.evaluation.panels.panel import Panel, colored
from functrain.evaluation.rankings import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]


def metric_bars(metric: str, values: Mapping[str, tuple[float, Interval | None]]) -> Panel:
    """A bar for each model, with the interval."""
    data = {
        "metric": metric,
        "models": list(values),
        "values": [value for value, _ in values.values()],
        "intervals": [interval for _, interval in values.values()],
    }
    return Panel(f"bars_{metric}", metric.replace("_", " "), "metric_bars", data)


def draw_metric_bars(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `metric_bars`, the first model on top; beside each bar its value."""
    ends = [0.0]
    for place, ((value, interval), color, _) in enumerate(colored(list(zip(data["values"], data["intervals"])))):
        if value is None or not np.isfinite(value):
            axes.text(0, place, " not defined", va="center", fontsize=8)
            continue
        axes.barh(place, value, 0.62, color=color, alpha=0.75)
        low, high = interval or (value, value)
        if interval is not None:
            axes.plot([low, high], [place, place], color="black", linewidth=1.2, marker="|", markersize=7)
        axes.annotate(
            f"{value:.4g}", (max(high, value, 0.0), place), (5, 0), textcoords="offset points", va="center", fontsize=8
        )
        ends += [value, low, high]
    span = max(ends) - min(ends) or 1.0
    axes.set_xlim(min(ends) - (0.05 * span if min(ends) < 0 else 0), max(ends) + 0.25 * span)
    axes.set_yticks(range(len(data["models"])), data["models"])
    axes.set_ylim(len(data["models"]) - 0.5, -0.5)
    axes.set_xlabel(f"{data['metric'].replace('_', ' ')}, with its 95 % interval", fontsize=9)


def mean_roc(curves: Mapping[str, Sequence[Ranking]]) -> list[dict[str, Any]]:
    """For each model the mean of the ROC curves of its classes: at each false positive rate the mean true one.

    Returns:
        The curves as the panel "roc" has them; the area under each is the mean of the classes' areas.
    """
    result = []
    for label, of_classes in curves.items():
        found = [rankings.roc_curve(one) for one in of_classes]
        (places,) = rankings.thinned(np.unique(np.concatenate([false for false, _ in found])))
        fpr = np.repeat(np.asarray(places), 2)
        tpr = np.mean([_at(np.asarray(places), false, true) for false, true in found], 0)
        area = float(np.mean([rankings.auroc(*one[1:]) for one in of_classes]))
        result.append({"label": label, "fpr": [0.0, *fpr.tolist()], "tpr": [0.0, *tpr.tolist()], "auroc": area})
    return result


def _at(places: Numbers, x: Numbers, y: Numbers) -> Numbers:
    """A rising curve just before and just behind each place, `[2 P]`; it may rise upright."""
    distinct, first = np.unique(x, return_index=True)
    before, behind = y[first], y[np.append(first[1:], len(x)) - 1]
    at = np.clip(np.searchsorted(distinct, places), 0, len(distinct) - 1)
    on = distinct[at] == places
    left = np.maximum(at - 1, 0)
    width = np.where(distinct[at] > distinct[left], distinct[at] - distinct[left], 1.0)
    between = behind[left] + (before[at] - behind[left]) * (places - distinct[left]) / width
    return np.stack([np.where(on, before[at], between), np.where(on, behind[at], between)], 1).reshape(-1)
