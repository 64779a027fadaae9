"""Members of an ensemble beside their mean prediction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from functrain.evaluation.figures import style
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def members(metric: str, values: Sequence[float], mean_prediction: float) -> Panel:
    """A metric of each member, and of their mean prediction."""
    data = {"metric": metric, "members": list(values), "mean_prediction": mean_prediction}
    return Panel(f"members_{metric}", f"Members: {metric.replace('_', ' ')}", "members", data)


def draw_members(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `members`: a point for each, and lines for the mean of their values and for their mean prediction."""
    known = [(number, value) for number, value in enumerate(data["members"]) if value is not None]
    if known:
        numbers, values = zip(*known)
        axes.scatter(numbers, values, s=26, color=style.BLUE, label="a member")
        mean = sum(values) / len(values)
        axes.axhline(mean, color=style.BLUE, linewidth=1.0, linestyle="--", label=f"mean of them {mean:.4g}")
    if data["mean_prediction"] is not None:
        label = f"mean prediction {data['mean_prediction']:.4g}"
        axes.axhline(data["mean_prediction"], color=style.RED, linewidth=1.4, label=label)
    style.whole_numbers(axes.xaxis)
    axes.set_xlabel("member", fontsize=9)
    axes.set_ylabel(data["metric"].replace("_", " "), fontsize=9)
    axes.margins(y=0.25)
