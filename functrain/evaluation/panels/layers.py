"""Numbers of layers over the training, as a heat map: a row for each layer, a column for each epoch."""

from typing import TYPE_CHECKING, Any

import numpy as np

from functrain.evaluation.figures import style
from functrain.evaluation.panels.importance import colorbar
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = 40  # of layers, beside a heat map
MAGNITUDES = 10.0  # from this ratio of the largest to the smallest on, colours are logarithmic


def layer_heat_map(
    name: str, title: str, unit: str, layers: list[str], epochs: list[int], values: list[list[float | None]]
) -> Panel:
    """Values `[layers][epochs]`; None or NaN where there is none."""
    data = {"layers": layers, "epochs": epochs, "values": values, "unit": unit}
    return Panel(name, title, "layer_heat_map", data)


def draw_layer_heat_map(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `layer_heat_map`; what is not finite is left grey."""
    from matplotlib.colors import LogNorm

    values = np.array([[np.nan if value is None else value for value in row] for row in data["values"]], float)
    shown = np.ma.masked_invalid(values)
    positive = shown.compressed()[shown.compressed() > 0]
    logarithmic = len(positive) > 0 and shown.min() >= 0 and positive.max() > MAGNITUDES * positive.min()
    if logarithmic:
        shown = np.ma.masked_where(shown <= 0, shown)
    norm = LogNorm(positive.min(), positive.max()) if logarithmic else None
    first, last = data["epochs"][0], data["epochs"][-1]
    extent = (first - 0.5, last + 0.5, len(values) - 0.5, -0.5)
    axes.set_facecolor("#bbbbbb")
    image = axes.imshow(shown, cmap="viridis", norm=norm, extent=extent, aspect="auto", interpolation="nearest")
    each = -(-len(values) // NAMES)
    axes.set_yticks(range(0, len(values), each), [_end(layer) for layer in data["layers"][::each]])
    style.whole_numbers(axes.xaxis)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel("layer" if each == 1 else f"layer (each {each}th is named)", fontsize=9)
    colorbar(axes, image, data["unit"])


def _end(name: str, most: int = 28) -> str:
    """A name, of which the end tells more than the beginning."""
    return name if len(name) <= most else f"...{name[3 - most :]}"
