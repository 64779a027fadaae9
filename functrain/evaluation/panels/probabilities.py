"""How sure a classifier is, and how often it is right then."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.calibrations import error_of
from functrain.evaluation.figures import style
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]
BARS = 30


def calibration(sums: Numbers, what: str) -> Panel:
    """Share of right predictions over sureness, of the sums of `CalibrationSums`."""
    bins = [{"examples": int(n), "sureness": float(s / n), "right": float(r / n)} for n, s, r in sums.T.tolist() if n]
    data = {"bins": bins, "error": float(error_of(sums)), "what": what}
    return Panel("calibration", "Calibration", "calibration", data)


def draw_calibration(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `calibration`; the area of a point is its number of examples."""
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, linestyle=":", label="perfect")
    bins = data["bins"]
    x, y, n = ([one[key] for one in bins] for key in ("sureness", "right", "examples"))
    axes.plot(x, y, color=style.BLUE, linewidth=1.2)
    most = max(n, default=1)
    label = f"expected calibration error {data['error']:.3f}"
    axes.scatter(x, y, s=[12 + 90 * count / most for count in n], color=style.BLUE, alpha=0.8, label=label)
    axes.set_xlabel(data["what"], fontsize=9)
    axes.set_ylabel("observed share", fontsize=9)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)


class Histogram:
    """How many examples of each group have which probability; examples are given a part at a time.

    Args:
        groups: their names.
    """

    def __init__(self, *groups: str) -> None:
        self._counts = {group: np.zeros(BARS, np.int64) for group in groups}

    def add(self, group: str, values: Numbers) -> None:
        """The next examples of a group."""
        self._counts[group] += np.histogram(np.clip(values, 0, 1), np.linspace(0, 1, BARS + 1))[0]

    def panel(self, what: str) -> Panel:
        """The figure."""
        counts = {group: values.tolist() for group, values in self._counts.items()}
        return Panel("probabilities", "Probabilities", "histogram", {"groups": counts, "what": what})


def draw_histogram(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw a `Histogram`, with a logarithmic axis where small counts would vanish."""
    edges = np.linspace(0, 1, BARS + 1)
    hatches = (None, "///", "...")
    for (label, counts), color, hatch in zip(data["groups"].items(), style.CYCLE, hatches):
        axes.stairs(counts, edges, fill=True, alpha=0.35, facecolor=color, edgecolor=color, linewidth=0, hatch=hatch)
        axes.stairs(counts, edges, color=color, linewidth=1.4, label=f"{label} ({sum(counts):,})")
    axes.set_xlabel(data["what"], fontsize=9)
    axes.set_ylabel("examples", fontsize=9)
    most = max((max(counts) for counts in data["groups"].values()), default=0)
    if most > 100:
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, None)
