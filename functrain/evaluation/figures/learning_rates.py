"""The figure of a learning-rate range test."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from functrain.evaluation.figures import style


def learning_rate_range(
    lr: Sequence[float], loss: Sequence[float], smoothed: Sequence[float], marks: Mapping[str, float], path: str | Path
) -> Path:
    """Draw the loss over the learning rate of a range test.

    Args:
        lr, loss, smoothed: of each update.
        marks: label -> a learning rate to point out.
        path: the image to write; its ending says the format (.png, .pdf, .svg).

    Returns:
        The path.

    Raises:
        ValueError, ModuleNotFoundError: as `check_figure`.
    """
    figure = style.figure(6.4)
    axes = figure.add_subplot()
    axes.plot(lr, loss, color=style.BLUE, alpha=0.35, linewidth=0.9, label="loss of each update")
    axes.plot(lr, smoothed, color=style.BLUE, linewidth=1.8, label="smoothed")
    for (label, rate), color, shape in zip(marks.items(), (style.RED, style.GREEN), ("o", "s")):
        height = np.interp(rate, lr, smoothed)
        axes.plot([rate], [height], shape, color=color, markersize=8, label=f"{label}: {rate:.2g}")
    axes.set_xscale("log")
    axes.set_title("loss over the learning rate", fontsize=11, loc="left")
    axes.set_xlabel("learning rate", fontsize=9)
    axes.set_ylabel("loss", fontsize=9)
    low = min(smoothed)
    high = max(smoothed[: smoothed.index(low) + 1])
    margin = 0.2 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)  # what comes with divergence would flatten the rest
    style.tidy(axes)
    return style.saved(figure, Path(path))
