"""The spread of the members of a stack around a curve."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from functrain.loop.output.log_files import MEMBERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_band(
    axes: "Axes", records: Sequence[Mapping[str, Any]], key: str, color: str, label: str | None = None
) -> None:
    """Draw the span from the lowest to the highest member; nothing for the records of one model."""
    x, low, high = span_of_members(records, key)
    if x:
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0, label=label)


def span_of_members(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float], list[float]]:
    """The steps of the records that have values of members, and the lowest and the highest of each.

    Example:
        >>> span_of_members([{"step": 3, "members": {"loss": [2.0, 1.0, None]}}, {"step": 4, "loss": 1.0}], "loss")
        ([3], [1.0], [2.0])
    """
    found = []
    for record in records:
        values = [value for value in record.get(MEMBERS, {}).get(key, ()) if value is not None]
        if values:
            found.append((record["step"], min(values), max(values)))
    return [x for x, _, _ in found], [low for _, low, _ in found], [high for _, _, high in found]
