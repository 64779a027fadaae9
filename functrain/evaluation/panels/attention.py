"""Where attention goes."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.figures import style
from functrain.evaluation.panels.importance import colorbar, smaller
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]


def attention_map(name: str, title: str, weights: Numbers) -> Panel:
    """The mean weights `[Q, K]` of a head."""
    data = {"weights": smaller(weights).tolist(), "queries": weights.shape[0], "keys": weights.shape[1]}
    return Panel(name, title, "attention_map", data)


def draw_attention_map(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `attention_map`."""
    extent = (-0.5, data["keys"] - 0.5, data["queries"] - 0.5, -0.5)
    weights = np.asarray(data["weights"], float)
    image = axes.imshow(weights, cmap="viridis", vmin=0, extent=extent, aspect="auto", interpolation="nearest")
    style.whole_numbers(axes.xaxis, axes.yaxis)
    axes.set_xlabel("key (position)", fontsize=9)
    axes.set_ylabel("query (position)", fontsize=9)
    colorbar(axes, image, "mean attention weight")


def attention_profile(name: str, title: str, weights: Numbers) -> Panel:
    """The weights of one query, `[N, K]`: the mean, and the middle 80 % of the examples."""
    low, high = np.quantile(weights, [0.1, 0.9], axis=0)
    data = {"mean": weights.mean(0).tolist(), "low": low.tolist(), "high": high.tolist(), "examples": len(weights)}
    return Panel(name, title, "attention_profile", data)


def draw_attention_profile(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `attention_profile`."""
    keys = range(len(data["mean"]))
    label = f"middle 80 % of {data['examples']:,} examples"
    axes.fill_between(keys, data["low"], data["high"], color=style.SKY, alpha=0.4, linewidth=0, label=label, step="mid")
    axes.step(keys, data["mean"], where="mid", color=style.BLUE, linewidth=1.4, label="mean")
    axes.set_xlabel("key (position)", fontsize=9)
    axes.set_ylabel("attention weight", fontsize=9)
    axes.set_ylim(bottom=0)


def attention_entropy(name: str, entropies: dict[str, Numbers]) -> Panel:
    """The normalised entropy of each head, `[N]` of the examples: its mean, and the middle 80 %."""
    quantiles = {label: np.quantile(each, [0.1, 0.9]) for label, each in entropies.items()}
    data = {
        "names": list(entropies),
        "mean": [float(each.mean()) for each in entropies.values()],
        "low": [float(low) for low, _ in quantiles.values()],
        "high": [float(high) for _, high in quantiles.values()],
    }
    return Panel(name, "Entropy of the attention", "attention_entropy", data)


def draw_attention_entropy(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `attention_entropy`."""
    places = list(range(len(data["names"])))
    below = [mean - min(low, mean) for mean, low in zip(data["mean"], data["low"])]
    above = [max(high, mean) - mean for mean, high in zip(data["mean"], data["high"])]
    whisker = {"ecolor": style.GREY, "elinewidth": 1.0, "capsize": 2}
    axes.barh(places, data["mean"], 0.6, xerr=[below, above], color=style.BLUE, error_kw=whisker)
    axes.set_yticks(places, data["names"])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("entropy / log(keys): 0 one key, 1 all alike", fontsize=9)
    axes.set_ylabel("head", fontsize=9)
