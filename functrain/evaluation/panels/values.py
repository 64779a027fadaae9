"""Predicted numbers beside true ones."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.figures import style
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]
POINTS = 2000
BARS = 40


def predicted_over_true(predicted: Numbers, truth: Numbers) -> Panel:
    """Each prediction over its target; of many examples some. They may be arrays in files."""
    chosen = np.unique(np.linspace(0, truth.size - 1, POINTS).round().astype(int))
    data = {name: values.flat[chosen].tolist() for name, values in (("true", truth), ("predicted", predicted))}
    return Panel("predicted", "Predicted and true values", "predicted_over_true", {**data, "examples": truth.size})


def draw_predicted_over_true(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `predicted_over_true`."""
    both = [value for value in (*data["true"], *data["predicted"]) if value is not None]
    ends = [min(both), max(both)]
    axes.plot(ends, ends, color=style.GREY, linewidth=0.8, linestyle=":", label="equal")
    shown = len(data["true"])
    label = f"{shown:,} of {data['examples']:,} values" if shown < data["examples"] else f"{shown:,} values"
    axes.scatter(data["true"], data["predicted"], s=9, alpha=0.5, color=style.BLUE, linewidths=0, label=label)
    axes.set_xlabel("true value", fontsize=9)
    axes.set_ylabel("predicted value", fontsize=9)


class Residuals:
    """How many values have which error; they are given a part at a time.

    Args:
        low, high: the least and the greatest error.
    """

    def __init__(self, low: float, high: float) -> None:
        self._edges = np.histogram_bin_edges(np.array([low, high]), BARS)
        self._counts, self._sum = np.zeros(BARS, np.int64), 0.0

    def add(self, errors: Numbers) -> None:
        """The next errors, of any shape."""
        self._counts += np.histogram(errors, BARS, (self._edges[0], self._edges[-1]))[0]
        self._sum += float(errors.sum())

    def panel(self) -> Panel:
        """The figure."""
        data = {"counts": self._counts.tolist(), "edges": self._edges.tolist()}
        return Panel("residuals", "Errors", "residuals", {**data, "mean": self._sum / int(self._counts.sum())})


def draw_residuals(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `Residuals`."""
    axes.stairs(data["counts"], data["edges"], fill=True, color=style.SKY)
    axes.axvline(0, color=style.GREY, linewidth=0.8, linestyle=":")
    axes.axvline(data["mean"], color=style.RED, linewidth=1.2, linestyle="--", label=f"mean {data['mean']:.3g}")
    axes.set_xlabel("predicted minus true value", fontsize=9)
    axes.set_ylabel("values", fontsize=9)
