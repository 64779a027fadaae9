"""Embeddings in two dimensions, and how much of them these show."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.figures import style
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
GROUPS = 12
COMPONENTS = 20


def scatter(
    name: str, title: str, points: Numbers, labels: NDArray[Any] | None, names: list[str] | None, axes: tuple[str, str]
) -> Panel:
    """Points `[N, 2]`, by group where labels `[N]` are known; of many groups the first ones have colours."""
    groups: dict[str, Any] = {}
    if labels is None:
        groups["examples"] = points.tolist()
    else:
        known = np.unique(labels)
        for label in known[:GROUPS]:
            text = str(label) if names is None else names[int(label)]
            groups[text] = points[labels == label].tolist()
        if len(known) > GROUPS:
            groups[f"{len(known) - GROUPS} others"] = points[np.isin(labels, known[GROUPS:])].tolist()
    return Panel(name, title, "scatter", {"groups": groups, "axes": list(axes)})


def draw_scatter(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `scatter`; groups differ in colour and shape."""
    for number, (label, points) in enumerate(data["groups"].items()):
        x, y = zip(*points) if points else ((), ())
        # 6 colours and 8 shapes: a group shares a colour with another one at most in another shape
        color, shape = style.CYCLE[number % len(style.CYCLE)], MARKERS[number % len(MARKERS)]
        axes.scatter(x, y, s=14, marker=shape, color=color, alpha=0.65, linewidths=0, label=label)
    axes.set_xlabel(data["axes"][0], fontsize=9)
    axes.set_ylabel(data["axes"][1], fontsize=9)


def explained_variance(name: str, shares: Numbers) -> Panel:
    """The part of the variance that each component has, and all up to it."""
    shown = shares[:COMPONENTS]
    data = {"shares": shown.tolist(), "sums": np.cumsum(shown).tolist(), "components": len(shares)}
    return Panel(name, "Variance of the components", "explained_variance", data)


def draw_explained_variance(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `explained_variance`."""
    places = range(1, len(data["shares"]) + 1)
    axes.bar(places, data["shares"], color=style.BLUE, label="this component")
    axes.plot(places, data["sums"], color=style.RED, linewidth=1.4, marker="o", markersize=3, label="all up to it")
    of = f" (first {len(data['shares'])} of {data['components']})" if data["components"] > len(data["shares"]) else ""
    axes.set_xlabel(f"component{of}", fontsize=9)
    axes.set_ylabel("share of the variance", fontsize=9)
    axes.set_ylim(0, 1.02)
    style.whole_numbers(axes.xaxis)
