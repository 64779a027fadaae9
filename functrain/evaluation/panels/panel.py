"""A figure as data: what it shows as JSON, and the function that draws it."""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from functrain.evaluation.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[["Axes", dict[str, Any]], None]
COLUMNS = 3  # of a sheet


class Panel(NamedTuple):
    """One figure.

    Attributes:
        name: of its file, such as "roc".
        title: above it.
        kind: names the function that draws it, of `functrain.evaluation.panels.KINDS`.
        data: what that takes; numbers, texts, lists and mappings.
    """

    name: str
    title: str
    kind: str
    data: dict[str, Any]


def write_panel(panel: Panel, path: Path) -> Path:
    """Write what a figure shows as JSON, of which `read_panel` makes the figure again."""
    return write_json(path, panel._asdict())


def write_json(path: Path, value: Any, indent: int | None = None) -> Path:
    """Write a value of JSON, with null for numbers that are not finite. A kill leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(_finite(value), indent=indent) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def read_panel(path: str | Path) -> Panel:
    """The figure that `write_panel` wrote.

    Raises:
        ValueError: if the file holds something else.
    """
    try:
        return Panel(**json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not the data of a figure: {error}") from error


def draw(panel: Panel, path: str | Path, kinds: dict[str, Draw]) -> Path:
    """Draw one figure into a file; its ending says the format."""
    figure = style.figure()
    _draw_on(figure.add_subplot(), panel, kinds)
    return style.saved(figure, Path(path))


def draw_sheet(
    panels: Sequence[Panel],
    path: str | Path,
    kinds: dict[str, Draw],
    title: str | None = None,
    height: float = style.HEIGHT,
) -> Path:
    """Draw all figures on one sheet, each so many inches high."""
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = style.figure(style.WIDTH * columns, height * rows)
    if title is not None:
        figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    for number, panel in enumerate(panels, start=1):
        _draw_on(figure.add_subplot(rows, columns, number), panel, kinds)
    return style.saved(figure, Path(path))


def colored(values: Sequence[Any]) -> Iterator[tuple[Any, str, str]]:
    """Each value with a colour and a line style; colours repeat with another line style."""
    for number, value in enumerate(values):
        yield value, style.CYCLE[number % len(style.CYCLE)], ("-", "--", ":", "-.")[number // len(style.CYCLE) % 4]


def _draw_on(axes: "Axes", panel: Panel, kinds: dict[str, Draw]) -> None:
    if panel.kind not in kinds:
        raise ValueError(f"there is no kind of figure {panel.kind!r}; there are {', '.join(kinds)}")
    axes.set_title(panel.title, fontsize=10, loc="left")
    kinds[panel.kind](axes, panel.data)
    style.tidy(axes)


def _finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
