"""Which class is taken for which."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS_UP_TO = 20  # classes
WIDTH = 230  # points, of the matrix


def confusion_matrix(counts: NDArray[np.float64], labels: list[str]) -> Panel:
    """The counts `[C, C]`, a row for each true class."""
    data = {"labels": labels, "counts": counts.astype(int).tolist()}
    return Panel("confusion_matrix", "Confusion matrix", "confusion_matrix", data)


def draw_confusion_matrix(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw the counts; colours are shares of the true class."""
    counts = np.asarray(data["counts"], float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("true class", fontsize=9)
    places = range(len(counts))
    if len(counts) > NUMBERS_UP_TO:
        return
    axes.set_xticks(places, data["labels"], rotation=0 if max(map(len, data["labels"])) < 4 else 45)
    axes.set_yticks(places, data["labels"])
    longest = len(f"{counts.max():,.0f}")
    size = min(8.0, WIDTH / len(counts) / (0.62 * longest))  # a digit is 0.62 times as wide as high
    for row in places:
        for column in places:
            if counts[row, column]:
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, f"{counts[row, column]:,.0f}", ha="center", va="center", fontsize=size, color=color
                )
