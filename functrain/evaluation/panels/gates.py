"""How far gates are open."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.figures import style
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]
NAMED = 20  # gates with a bar and a name each; of more there is a curve


def gate_openings(name: str, title: str, values: Numbers, names: list[str]) -> Panel:
    """The values `[N, K]` of K gates, 0 closed and 1 open: the mean, and the middle 80 % of the examples."""
    low, high = np.quantile(values, [0.1, 0.9], axis=0)
    mean = values.mean(0)
    order = np.argsort(-mean, kind="stable")
    data = {
        "names": [names[i] for i in order],
        "mean": mean[order].tolist(),
        "low": low[order].tolist(),
        "high": high[order].tolist(),
        "examples": len(values),
    }
    return Panel(name, title, "gate_openings", data)


def draw_gate_openings(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `gate_openings`; the most open gate comes first."""
    places = list(range(len(data["mean"])))
    label = f"middle 80 % of {data['examples']:,} examples"
    if len(places) > NAMED:
        axes.fill_between(places, data["low"], data["high"], color=style.SKY, alpha=0.4, linewidth=0, label=label)
        axes.plot(places, data["mean"], color=style.BLUE, linewidth=1.4, label="mean")
        axes.set_xlabel(f"{len(places)} gates, the most open one first", fontsize=9)
        axes.set_ylabel("gate: 0 closed, 1 open", fontsize=9)
        axes.set_ylim(0, 1.02)
        return
    below = [mean - min(low, mean) for mean, low in zip(data["mean"], data["low"])]
    above = [max(high, mean) - mean for mean, high in zip(data["mean"], data["high"])]
    whisker = {"ecolor": style.GREY, "elinewidth": 1.0, "capsize": 2}
    axes.barh(places, data["mean"], 0.6, xerr=[below, above], color=style.BLUE, error_kw=whisker)
    axes.set_yticks(places, data["names"])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.set_xlabel(f"gate: 0 closed, 1 open; {label}", fontsize=9)
