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
    """Each prediction over its target; of many examples some."""
    chosen = np.unique(np.linspace(0, len(truth) - 1, POINTS).round().astype(int))
    data = {"true": truth[chosen].tolist(), "predicted": predicted[chosen].tolist(), "examples": len(truth)}
    return Panel("predicted", "Predicted and true values", "predicted_over_true", data)


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


def residuals(predicted: Numbers, truth: Numbers) -> Panel:
    """How many examples have which error."""
    errors = predicted - truth
    counts, edges = np.histogram(errors, BARS)
    data = {"counts": counts.tolist(), "edges": edges.tolist(), "mean": float(errors.mean())}
    return Panel("residuals", "Errors", "residuals", data)


def draw_residuals(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `residuals`."""
    axes.stairs(data["counts"], data["edges"], fill=True, color=style.SKY)
    axes.axvline(0, color=style.GREY, linewidth=0.8, linestyle=":")
    axes.axvline(data["mean"], color=style.RED, linewidth=1.2, linestyle="--", label=f"mean {data['mean']:.3g}")
    axes.set_xlabel("predicted minus true value", fontsize=9)
    axes.set_ylabel("values", fontsize=9)
