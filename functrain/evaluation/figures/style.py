"""One look for all figures: colours, axes, files. Figures are readable at half their size, and without colours."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")

BLUE, RED, GREEN = "#0072b2", "#d55e00", "#009e73"
ORANGE, PURPLE, SKY = "#e69f00", "#cc79a7", "#56b4e9"
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
"""Colours that people with each kind of colour blindness tell apart (Okabe and Ito 2008)."""
_SAME_FILE = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # else they differ
GREY = "#777777"
HEIGHT = 3.9  # inches, of a panel
WIDTH = 4.6
_WITHIN = 6  # entries of a legend; more stand beside the axes, where they cover nothing, and so do those of bars


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
    matplotlib()


def figure(width: float = WIDTH, height: float = HEIGHT) -> "Figure":
    """An empty figure of this size in inches, which never opens a window."""
    figure_class, canvas_class = matplotlib()
    made = figure_class(figsize=(width, height), layout="constrained", dpi=130)
    canvas_class(made)  # never a window, whatever backend the process has chosen
    return made


def matplotlib() -> tuple[type["Figure"], type["FigureCanvasAgg"]]:
    """The classes that figures are made of.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "figures are drawn with matplotlib, which is not installed. Run: pip install 'functrain[plots]'"
        ) from error
    return Figure, FigureCanvasAgg


def saved(figure: "Figure", path: Path) -> Path:
    """Write a figure. A kill leaves the old file or the new one; equal figures are equal files."""
    check_figure(path)
    from matplotlib import rc_context

    temporary = path.with_name(f".tmp-{path.name}")
    with rc_context({"svg.hashsalt": "functrain"}):
        figure.savefig(temporary, metadata=_SAME_FILE[path.suffix.lower()])
    os.replace(temporary, path)
    return path


def whole_numbers(*axes: "Axis") -> None:
    """Ticks of these axes at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def tidy(axes: "Axes") -> None:
    """Grid, frame and legend as all figures have them."""
    from matplotlib.container import BarContainer

    axes.tick_params(labelsize=8)
    if not axes.get_images():
        axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        covers = len(handles) > _WITHIN or any(isinstance(each, BarContainer) for each in axes.containers)
        beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if covers else {}
        axes.legend(frameon=False, fontsize=8, **beside)
