"""Figures of a run. Imports numpy and step; matplotlib on first use, without a display."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from functrain.step.train import is_about_update

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

POSITION = {"kind", "epoch", "step", "samples"}  # what a record says beside its metrics
FORMATS = (".png", ".pdf", ".svg")
COLORS = {"train": "#4c72b0", "eval": "#dd8452", "ema": "#55a868", "lr": "#8172b3"}
LABELS = {"train": "training", "eval": "validation", "ema": "validation, averaged parameters"}


def training_curves(records: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw loss, metrics and learning rate over the run; of statistics of layers there are too many.

    Args:
        records: of a run: `fit(...).history`, or what `metrics.jsonl` holds, which adds the values of single steps.
        path: the image to write; its ending says the format (.png, .pdf, .svg).

    Returns:
        The path.

    Raises:
        ValueError: if there is no record with a metric, and as `check_figure`.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> import tempfile
        >>> history = [{"kind": "epoch", "epoch": e, "step": 10 * e, "train_loss": 1 / e} for e in (1, 2, 3)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     training_curves(history, f"{folder}/curves.png").stat().st_size > 1000
        True
    """
    epochs = [record for record in records if record["kind"] != "step"]
    steps = [record for record in records if record["kind"] == "step"]
    names = _metric_names(epochs, steps)
    panels = [*names, *(["lr"] if any("lr" in record for record in steps) else [])]
    if not panels:
        raise ValueError("there is nothing to draw: the run has no records with metrics yet")
    figure = _figure(4.6 * len(panels))
    for column, name in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), column + 1)
        _draw(axes, name, epochs, steps)
        _finish(axes, name, epochs)
    return _saved(figure, Path(path))


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
    figure = _figure(6.4)
    axes = figure.add_subplot()
    axes.plot(lr, loss, color=COLORS["train"], alpha=0.35, linewidth=0.9, label="loss of each update")
    axes.plot(lr, smoothed, color=COLORS["train"], linewidth=1.8, label="smoothed")
    for (label, rate), color in zip(marks.items(), (COLORS["eval"], COLORS["ema"])):
        axes.plot([rate], [np.interp(rate, lr, smoothed)], "o", color=color, markersize=7, label=f"{label}: {rate:.2g}")
    axes.set_xscale("log")
    axes.set_title("loss over the learning rate", fontsize=11, loc="left")
    axes.set_xlabel("learning rate", fontsize=9)
    low = min(smoothed)
    high = max(smoothed[: smoothed.index(low) + 1])
    margin = 0.2 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)  # what comes with divergence would flatten the rest
    _tidy(axes)
    return _saved(figure, Path(path))


def check_figure(path: str | Path) -> None:
    """Refuse a figure that could not be drawn or written, before the work that it would show is done.

    Args:
        path: the image to write.

    Raises:
        ValueError: for another format than .png, .pdf or .svg, or a folder that is not there.
        ModuleNotFoundError: without matplotlib.

    Example:
        >>> check_figure("curves.txt")
        Traceback (most recent call last):
        ...
        ValueError: a figure's name must end in .png, .pdf or .svg, got 'curves.txt'
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"a figure's name must end in .png, .pdf or .svg, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {str(path.parent)!r} to write the figure {path.name!r} to; make it first")
    _matplotlib()


def _figure(width: float) -> "Figure":
    figure_class, canvas_class = _matplotlib()
    figure = figure_class(figsize=(width, 3.9), layout="constrained", dpi=130)
    canvas_class(figure)  # never a window, whatever backend the process has chosen
    return figure


def _matplotlib() -> tuple[type["Figure"], type["FigureCanvasAgg"]]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "figures are drawn with matplotlib, which is not installed. Run: pip install 'functrain[plots]'"
        ) from error
    return Figure, FigureCanvasAgg


def _saved(figure: "Figure", path: Path) -> Path:
    check_figure(path)
    temporary = path.with_name(f".tmp-{path.name}")
    # In a PNG matplotlib writes its version, and equal curves would be different files.
    figure.savefig(temporary, metadata={"Software": None} if path.suffix.lower() == ".png" else None)
    os.replace(temporary, path)
    return path


def _metric_names(epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics in the records, the loss first, without statistics of layers: thousands for a large network."""
    found = [key.partition("_")[2] for record in epochs for key in record if key.partition("_")[0] in LABELS]
    found += [key for record in steps for key in record if key not in POSITION and not is_about_update(key)]
    return sorted(dict.fromkeys(found), key=lambda name: name != "loss")


def _draw(axes: "Axes", name: str, epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
    if name == "lr":
        axes.plot(*_series(steps, "lr"), color=COLORS["lr"], linewidth=1.8)
        return
    x, y = _series(steps, name)
    if x:
        axes.plot(x, y, color=COLORS["train"], alpha=0.3, linewidth=0.9, label="training, single steps")
    for prefix, label in LABELS.items():
        x, y = _series(epochs, f"{prefix}_{name}")
        if x:
            dots = "o" if len(x) <= 40 else None
            axes.plot(x, y, color=COLORS[prefix], linewidth=1.8, marker=dots, markersize=3, label=label)


def _series(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    return [x for x, _ in points], [y for _, y in points]


def _finish(axes: "Axes", name: str, epochs: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title({"lr": "learning rate"}.get(name, name), fontsize=11, loc="left")
    axes.set_xlabel("step", fontsize=9)
    if name == "loss" and _spans_magnitudes(axes):
        axes.set_yscale("log")
    if name == "lr":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    elif name != "loss":
        _look_at_the_end(axes)
    _tidy(axes)
    whole = [record for record in epochs if record["kind"] == "epoch" and record["step"] and record["epoch"]]
    if whole:
        per_epoch = whole[-1]["step"] / whole[-1]["epoch"]
        top = axes.secondary_xaxis("top", functions=(lambda x: x / per_epoch, lambda x: x * per_epoch))
        top.set_xlabel("epoch", fontsize=9)
        top.xaxis.set_major_locator(MaxNLocator(integer=True))
        top.tick_params(labelsize=8)
        top.spines["top"].set_visible(False)


def _tidy(axes: "Axes") -> None:
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(frameon=False, fontsize=8)


def _look_at_the_end(axes: "Axes") -> None:
    """Cut the axis to what values are after the first fifth of the run: the climb from chance hides the rest."""
    points = [np.asarray(line.get_xydata(), float).reshape(-1, 2) for line in axes.get_lines()]
    x, y = np.concatenate(points).T if points else np.empty((2, 0))
    late = y[(x >= 0.2 * x.max(initial=0.0)) & np.isfinite(y)].tolist()
    if late and max(late) > min(late):
        margin = 0.08 * (max(late) - min(late))
        axes.set_ylim(min(late) - margin, max(late) + margin)


def _spans_magnitudes(axes: "Axes") -> bool:
    """Whether a linear axis would flatten most of the curve."""
    values = [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata()) if np.isfinite(y)]
    return min(values, default=0.0) > 0 and max(values) > 20 * min(values)
