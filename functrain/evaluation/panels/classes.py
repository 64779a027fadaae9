"""Scores of each class as bars."""

from typing import TYPE_CHECKING, Any

from functrain.evaluation.figures import style
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 30  # classes


def class_scores(name: str, title: str, labels: list[str], scores: dict[str, list[float]]) -> Panel:
    """A bar for each class and score, in [0, 1]."""
    return Panel(name, title, "class_scores", {"labels": labels, "scores": scores})


def draw_class_scores(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `class_scores`; of many classes the first ones."""
    labels = data["labels"][:SHOWN]
    width = 0.8 / len(data["scores"])
    for number, ((name, values), color) in enumerate(zip(data["scores"].items(), style.CYCLE)):
        places = [place + (number - (len(data["scores"]) - 1) / 2) * width for place in range(len(labels))]
        heights = [0.0 if value is None else value for value in values[:SHOWN]]
        axes.bar(places, heights, width, color=color, label=name)
    axes.set_xticks(range(len(labels)), labels, rotation=0 if max(map(len, labels)) < 4 else 45)
    more = len(data["labels"]) - len(labels)
    axes.set_xlabel("class" if not more else f"class (and {more} more)", fontsize=9)
    axes.set_ylabel("score", fontsize=9)
    axes.set_ylim(0, 1.02)
