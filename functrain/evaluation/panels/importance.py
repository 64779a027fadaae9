"""How much inputs contribute to an output: of a table each feature, of a spectrum each band, of an image each pixel."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.figures import style
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]
BARS = 20
SHOWN = 6  # examples of images
PIXELS = 96  # a side, of an image in a figure
NORMAL = 1.959964  # of a standard normal variable, 95 % lie within
AMOUNT = "mean |attribution|"


def feature_importance(name: str, values: Numbers, names: list[str]) -> Panel:
    """The mean magnitude of each feature's attributions `[N, F]`, with its interval; of many the largest ones."""
    sizes = np.abs(values)
    mean = sizes.mean(0)
    margin = NORMAL * sizes.std(0, ddof=1) / np.sqrt(len(sizes)) if len(sizes) > 1 else np.zeros_like(mean)
    order = np.argsort(-mean, kind="stable")
    data = {
        "names": [names[i] for i in order],
        "values": mean[order].tolist(),
        "margins": margin[order].tolist(),
        "examples": len(values),
    }
    return Panel(name, "Feature importance", "feature_importance", data)


def draw_feature_importance(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `feature_importance`."""
    shown = min(BARS, len(data["names"]))
    places = list(range(shown))
    whisker = {"ecolor": style.GREY, "elinewidth": 1.0, "capsize": 2}
    axes.barh(places, data["values"][:shown], xerr=data["margins"][:shown], color=style.BLUE, error_kw=whisker)
    axes.set_yticks(places, [_short(name) for name in data["names"][:shown]])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    more = len(data["names"]) - shown
    axes.set_ylabel("feature" if not more else f"feature (and {more} more)", fontsize=9)
    axes.set_xlabel(f"{AMOUNT}, 95 % interval of {data['examples']:,} examples", fontsize=9)


def band_importance(name: str, values: Numbers) -> Panel:
    """The magnitude of each band's attributions `[N, ..., L]`: the mean, and the middle 80 % of the examples."""
    sizes = np.abs(values).reshape(len(values), -1, values.shape[-1]).mean(1)
    low, high = np.quantile(sizes, [0.1, 0.9], axis=0)
    data = {"mean": sizes.mean(0).tolist(), "low": low.tolist(), "high": high.tolist(), "examples": len(values)}
    return Panel(name, "Importance of bands", "band_importance", data)


def draw_band_importance(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `band_importance`."""
    bands = range(len(data["mean"]))
    label = f"middle 80 % of {data['examples']:,} examples"
    axes.fill_between(bands, data["low"], data["high"], color=style.SKY, alpha=0.4, linewidth=0, label=label)
    axes.plot(bands, data["mean"], color=style.BLUE, linewidth=1.4, label="mean")
    axes.set_xlabel("band (index)", fontsize=9)
    axes.set_ylabel("|attribution|", fontsize=9)
    axes.set_ylim(bottom=0)


def pixel_importance(name: str, values: Numbers) -> Panel:
    """The mean magnitude of each pixel's attributions `[N, C, H, W]`, summed over channels."""
    whole = np.abs(values).sum(1).mean(0)
    data = {"map": smaller(whole).tolist(), "rows": whole.shape[0], "columns": whole.shape[1], "examples": len(values)}
    return Panel(name, "Importance of pixels", "pixel_importance", data)


def draw_pixel_importance(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `pixel_importance`."""
    image = _image(axes, np.asarray(data["map"], float), data["rows"], data["columns"], cmap="viridis", vmin=0)
    axes.set_xlabel("column (pixel)", fontsize=9)
    axes.set_ylabel("row (pixel)", fontsize=9)
    colorbar(axes, image, f"{AMOUNT} of {data['examples']:,} examples")


def image_examples(name: str, images: Numbers, values: Numbers, labels: list[str]) -> Panel:
    """A few images `[N, C, H, W]` above their attributions, summed over channels, with a label each."""
    chosen = np.unique(np.linspace(0, len(images) - 1, SHOWN).round().astype(int))
    sums = [smaller(values[i].sum(0)) for i in chosen]
    data = {
        "images": [_shades(images[i]).tolist() for i in chosen],
        "attributions": [(each / (np.abs(each).max() or 1.0)).tolist() for each in sums],
        "labels": [labels[i] for i in chosen],
    }
    return Panel(name, "Examples", "image_examples", data)


def draw_image_examples(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `image_examples`."""
    count, gap = len(data["images"]), 0.08
    shown = None
    for column, (image, attribution) in enumerate(zip(data["images"], data["attributions"])):
        across = (column, column + 1 - gap)
        axes.imshow(np.asarray(image, float), cmap="gray_r", extent=(*across, 1 + gap, 2), interpolation="nearest")
        shown = axes.imshow(
            np.asarray(attribution, float),
            cmap="RdBu_r",
            vmin=-1,
            vmax=1,
            extent=(*across, 0, 1 - gap),
            interpolation="nearest",
        )
        axes.text(sum(across) / 2, 2 + gap, data["labels"][column], ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-gap, count)
    axes.set_ylim(-gap, 2.35)
    axes.set_aspect("equal")
    axes.set_yticks([0.5, 1.5], ["attribution", "input"])
    axes.set_xticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    if shown is not None:
        colorbar(axes, shown, "part of the largest attribution of the example", below=True)


def input_shares(name: str, shares: dict[str, Numbers]) -> Panel:
    """How much each of several inputs contributes: its part `[N]` of the sum of all magnitudes."""
    data = {
        "names": list(shares),
        "values": [float(each.mean()) for each in shares.values()],
        "margins": [
            float(NORMAL * each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0 for each in shares.values()
        ],
    }
    return Panel(name, "Share of each input", "input_shares", data)


def draw_input_shares(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `input_shares`."""
    places = list(range(len(data["names"])))
    whisker = {"ecolor": style.GREY, "elinewidth": 1.0, "capsize": 2}
    axes.bar(places, data["values"], 0.6, yerr=data["margins"], color=style.BLUE, error_kw=whisker)
    axes.set_xticks(places, [_short(name) for name in data["names"]])
    axes.set_xlabel("input", fontsize=9)
    axes.set_ylabel("share of all |attributions|", fontsize=9)
    axes.set_ylim(0, 1.02)


def colorbar(axes: "Axes", image: Any, label: str, *, below: bool = False) -> None:
    """The scale of an image's colours."""
    bar = axes.figure.colorbar(
        image, ax=axes, location="bottom" if below else "right", shrink=0.8, fraction=0.06, pad=0.03
    )
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def smaller(values: Numbers) -> Numbers:
    """A map `[H, W]`, or one of less resolution: the means of its parts.

    Example:
        >>> smaller(np.ones((4, 300))).shape
        (4, 96)
    """
    for axis in (0, 1):
        size = values.shape[axis]
        if size > PIXELS:
            edges = np.linspace(0, size, PIXELS + 1).round().astype(int)
            values = np.add.reduceat(values, edges[:-1], axis=axis)
            values = values / np.expand_dims(np.diff(edges), 1 - axis)
    return values


def _image(axes: "Axes", values: Numbers, rows: int, columns: int, **options: Any) -> Any:
    """A map, with an axis in the units of the whole one."""
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    image = axes.imshow(values, extent=extent, aspect="equal", interpolation="nearest", **options)
    style.whole_numbers(axes.xaxis, axes.yaxis)
    return image


def _shades(image: Numbers) -> Numbers:
    """An image `[C, H, W]` as shades `[H, W]`, or as colours `[H, W, 3]`, from 0 to 1."""
    channels = np.stack([smaller(channel) for channel in image], -1)
    low, high = channels.min(), channels.max()
    scaled = (channels - low) / (high - low) if high > low else np.zeros_like(channels)
    return scaled if scaled.shape[-1] == 3 else scaled.mean(-1)


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 3]}..."
