"""The curves of a run: losses, metrics, and what is known of its updates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from functrain.evaluation.figures import style
from functrain.evaluation.figures.bands import draw_band
from functrain.loop.output.log_files import MEMBERS
from functrain.loop.output.timing import Timing
from functrain.step.finish import is_about_update

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POSITION = {"kind", "epoch", "step", "samples", "digest", MEMBERS}  # what a record says beside its metrics
COLORS = {"train": style.BLUE, "eval": style.RED, "ema": style.GREEN, "lr": style.PURPLE}
LABELS = {"train": "training", "eval": "validation", "ema": "validation, averaged parameters"}
UPDATES = {"lr": "learning rate", "grad_norm": "gradient norm, before clipping", "loss_scale": "loss scale"}
THROUGHPUT = "training throughput (examples/s)"
COLUMNS = 3
SMOOTHED = 50  # updates in a curve: of more, their running median is drawn, too


def training_curves(
    records: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    title: str | None = None,
    best: int | None = None,
    timings: Sequence[Timing] = (),
) -> Path:
    """Draw loss, metrics, learning rate, gradient norm, loss scale and throughput over the run, as far as known.

    `functrain.evaluation.layer_statistics` draws the statistics of layers.

    Args:
        records: of a run: `fit(...).history`, or what `metrics.jsonl` holds, which adds the values of single steps.
        path: the image to write; its ending says the format (.png, .pdf, .svg).
        title: above the panels, such as the run's name.
        best: the step of the best checkpoint, which is marked.
        timings: of the run's epochs (`functrain.loop.output.timing.read_timings`), for the throughput.

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
    return style.saved(curves_figure(records, title=title, best=best, timings=timings), Path(path))


def learning_rate_schedule(records: Sequence[Mapping[str, Any]], path: str | Path, *, title: str | None = None) -> Path:
    """Draw the learning rate of the updates, as it was logged; arguments as of `training_curves`.

    Raises:
        ValueError: if no record has a learning rate, and as `check_figure`.
        ModuleNotFoundError: without matplotlib.
    """
    epochs, steps = _by_kind(records)
    if not _known(steps, "lr"):
        raise ValueError("there is no learning rate to draw: no record of an update has one")
    figure = style.figure(1.4 * style.WIDTH)
    if title is not None:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    axes = figure.add_subplot()
    _draw(axes, "lr", epochs, steps)
    _scale(axes, "lr")
    _finish(axes, "lr", epochs)
    return style.saved(figure, Path(path))


def curves_figure(
    records: Sequence[Mapping[str, Any]],
    *,
    title: str | None = None,
    best: int | None = None,
    timings: Sequence[Timing] = (),
) -> "Figure":
    """The figure that `training_curves` writes; arguments and errors as there."""
    epochs, steps = _by_kind(records)
    panels = [*_metric_names(epochs, steps), *(name for name in UPDATES if _known(steps, name))]
    if not panels:
        raise ValueError("there is nothing to draw: the run has no records with metrics yet")
    panels += [THROUGHPUT] if timings else []
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = style.figure(style.WIDTH * columns, style.HEIGHT * rows)
    if title is not None:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    for number, name in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        if name == THROUGHPUT:
            _draw_throughput(axes, timings)
        else:
            _draw(axes, name, epochs, steps)
        _scale(axes, name)
        if best is not None:
            _mark(axes, best, epochs, labelled=number == 1)
        _finish(axes, name, epochs)
    return figure


def _by_kind(
    records: Sequence[Mapping[str, Any]],
) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """The records of epochs, and those of single updates."""
    return [each for each in records if each["kind"] != "step"], [each for each in records if each["kind"] == "step"]


def _known(steps: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(record.get(name) is not None for record in steps)


def _metric_names(epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics in the records, the loss first; of single layers and classes there may be thousands."""
    found = [key.partition("_")[2] for record in epochs for key in record if key.partition("_")[0] in LABELS]
    found += [key for record in steps for key in record if key not in POSITION and not is_about_update(key)]
    names = [name for name in dict.fromkeys(found) if not ("/" in name and name.rpartition("/")[2].isdigit())]
    return sorted(names, key=lambda name: name != "loss")


def _draw(axes: "Axes", name: str, epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> None:
    x, y = _series(steps, name)
    if name in UPDATES:
        _draw_of_updates(axes, name, x, y)
        draw_band(axes, steps, name, COLORS["lr"] if name == "lr" else style.BLUE)
        return
    if x:
        thin: dict[str, Any] = {"alpha": 0.3, "linewidth": 0.9, "marker": _dot(x), "markersize": 5}
        axes.plot(x, y, color=COLORS["train"], label="training, single steps", **thin)
    for (prefix, label), shape in zip(LABELS.items(), ("o", "s", "^")):
        x, y = _series(epochs, f"{prefix}_{name}")
        if x:
            size = 3 if len(x) > 1 else 7
            thick: dict[str, Any] = {"linewidth": 1.8, "marker": shape if len(x) <= 40 else None, "markersize": size}
            axes.plot(x, y, color=COLORS[prefix], label=label, **thick)
            draw_band(axes, epochs, f"{prefix}_{name}", COLORS[prefix], f"{label}, members")


def _draw_of_updates(axes: "Axes", name: str, x: list[int], y: list[float]) -> None:
    if name == "lr":
        axes.plot(*with_corners(x, y), color=COLORS["lr"], linewidth=1.8, marker=_dot(x), markersize=6)
    elif name == "loss_scale":
        axes.step(x, y, where="pre", color=COLORS["lr"], linewidth=1.8, marker=_dot(x), markersize=6)
    else:
        smooths = len(x) > SMOOTHED
        label = "single steps" if smooths else None
        thin: dict[str, Any] = {"alpha": 0.4, "linewidth": 0.9} if smooths else {"linewidth": 1.5}
        axes.plot(x, y, color=style.BLUE, label=label, marker=_dot(x), markersize=6, **thin)
        if smooths:
            width = len(x) // 20 * 2 + 1
            axes.plot(x, _running_median(y, width), color=style.BLUE, linewidth=1.8, label=f"median of {width}")


def _running_median(values: Sequence[float], width: int) -> list[float]:
    """The median of each value and those beside it, `width` in all; fewer at the ends.

    Example:
        >>> _running_median([1.0, 9.0, 2.0, 3.0], 3)
        [5.0, 2.0, 3.0, 2.5]
    """
    half = width // 2
    return [float(np.median(values[max(i - half, 0) : i + half + 1])) for i in range(len(values))]


def _draw_throughput(axes: "Axes", timings: Sequence[Timing]) -> None:
    known = [each for each in timings if each.seconds > 0]
    x, y = [each.step for each in known], [each.examples / each.seconds for each in known]
    marker, size = "o" if len(x) <= 40 else None, 3 if len(x) > 1 else 7
    axes.plot(x, y, color=style.GREEN, linewidth=1.8, marker=marker, markersize=size)


def _mark(axes: "Axes", best: int, epochs: Sequence[Mapping[str, Any]], *, labelled: bool) -> None:
    """Point out the best checkpoint."""
    epoch = next((record["epoch"] for record in epochs if record["step"] == best), None)
    label = f"best checkpoint: step {best:,}" if epoch is None else f"best checkpoint: epoch {epoch}"
    axes.axvline(best, color="black", linewidth=1.0, linestyle="--", label=label if labelled else None)


def _dot(points: Sequence[float]) -> str | None:
    """A line of a single point is invisible without a marker."""
    return "o" if len(points) == 1 else None


def with_corners(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """A curve that is known at some places, with the corners between them.

    The learning rate is logged at every tenth update or so. A line between two of these places would cut off the corner
    at the end of a warm-up. Where the lines before and after meet in between, there the corner is drawn.

    Example:
        >>> with_corners([10, 20, 30, 40], [1.0, 2.0, 2.5, 2.5])  # rises by 0.1 up to 25
        ([10.0, 20.0, 25.0, 30.0, 40.0], [1.0, 2.0, 2.5, 2.5, 2.5])
    """
    places, values = np.asarray(x, float), np.asarray(y, float)
    points = [(float(a), float(b)) for a, b in zip(places, values)]
    span, bent = float(np.ptp(values)) if len(values) else 0.0, 0
    for i in range(1, len(places) - 2):
        before, after = (
            (values[j + 1] - values[j]) / (places[j + 1] - places[j]) if places[j + 1] > places[j] else np.nan
            for j in (i - 1, i + 1)
        )
        if (bent and bent == i - 1) or not (np.isfinite(before - after) and before > max(after, 0)):
            continue  # only where a rise ends: a few points of a smooth decay look like corners, too
        where = (values[i + 1] - values[i] + before * places[i] - after * places[i + 1]) / (before - after)
        height = values[i] + before * (where - places[i])
        off = abs(height - np.interp(where, places[i : i + 2], values[i : i + 2]))
        if places[i] < where < places[i + 1] and off > 0.01 * span:  # a bend, not the curvature of a smooth curve
            points.append((float(where), float(height)))
            bent = i  # a line over a corner says nothing about the next part
    points.sort()
    return [place for place, _ in points], [value for _, value in points]


def _series(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    return [x for x, _ in points], [y for _, y in points]


def _scale(axes: "Axes", name: str) -> None:
    """The axes' kinds and ends, from what is drawn."""
    steps = {float(x) for line in axes.get_lines() for x in np.asarray(line.get_xdata())}
    if len(steps) == 1 and max(steps) > 0:
        axes.set_xlim(0.0, 1.2 * max(steps))  # of one point matplotlib would show an eighth of a step
    if name in ("loss", "grad_norm") and _spans_magnitudes(axes):
        axes.set_yscale("log")
    if name == "loss_scale":
        axes.set_yscale("log", base=2)
    if name == "lr":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    if axes.get_yscale() == "linear":
        _show_all(axes, at_least=0.0 if name == "lr" else 0.1)
    if name == THROUGHPUT:
        axes.set_ylim(bottom=0)


def _finish(axes: "Axes", name: str, epochs: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_ylabel(UPDATES.get(name, name), fontsize=9)
    axes.set_xlabel("step", fontsize=9)
    style.tidy(axes)
    whole = [record for record in epochs if record["kind"] == "epoch" and record["step"] and record["epoch"]]
    if whole:
        per_epoch = whole[-1]["step"] / whole[-1]["epoch"]
        top = axes.secondary_xaxis("top", functions=(lambda x: x / per_epoch, lambda x: x * per_epoch))
        top.set_xlabel("epoch", fontsize=9)
        top.xaxis.set_major_locator(MaxNLocator(integer=True))
        top.tick_params(labelsize=8)
        top.spines["top"].set_visible(False)


def _show_all(axes: "Axes", *, at_least: float) -> None:
    """An axis over all values, and over `at_least` this part of their size: a narrower one would magnify noise."""
    points = [np.asarray(line.get_ydata(), float).ravel() for line in axes.get_lines()]
    points += [np.asarray(path.vertices, float)[:, 1] for band in axes.collections for path in band.get_paths()]
    values = np.concatenate(points) if points else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    missing = max(at_least * max(abs(low), abs(high)) - (high - low), 0.0)
    margin = 0.05 * (high - low + missing) or 0.5
    bottom, top = low - missing / 2 - margin, high + missing / 2 + margin
    if low >= 0 and high <= 1:  # a fraction, as accuracies are: its axis ends a little beyond 0 and 1
        bottom, top = max(bottom, -0.02), min(top, 1.02)
    axes.set_ylim(bottom, top)


def _spans_magnitudes(axes: "Axes") -> bool:
    """Whether a linear axis would flatten most of the curve."""
    values = [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata()) if np.isfinite(y)]
    return min(values, default=0.0) > 0 and max(values) > 20 * min(values)
