"""Curves of scores: ROC, precision and recall, rates over the threshold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from functrain.evaluation import rankings
from functrain.evaluation.figures import style
from functrain.evaluation.panels.panel import Panel, colored
from functrain.evaluation.rankings import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Curves(NamedTuple):
    """The curves of one label, with some of their points.

    Attributes:
        roc: the ROC curve.
        precision_recall: precision over recall.
    """

    roc: dict[str, Any]
    precision_recall: dict[str, Any]


def curves_of(label: str, given: Ranking) -> Curves:
    """The curves of a ranking."""
    false, true = rankings.thinned(*rankings.roc_curve(given))
    recall, precision = rankings.thinned(*rankings.precision_recall_curve(given))
    positives, negatives = float(given.positives.sum()), float(given.negatives.sum())
    return Curves(
        {"label": label, "fpr": false, "tpr": true, "auroc": float(rankings.auroc(*given[1:]))},
        {
            "label": label,
            "recall": recall,
            "precision": precision,
            "average_precision": float(rankings.average_precision(*given[1:])),
            "prevalence": positives / (positives + negatives) if positives + negatives else float("nan"),
        },
    )


def roc(given: Sequence[Curves]) -> Panel:
    """The ROC curve of each label."""
    return Panel("roc", "ROC", "roc", {"curves": [one.roc for one in given]})


def draw_roc(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `roc`."""
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, linestyle=":", label="chance")
    for curve, color, line in colored(data["curves"]):
        label = _labelled(curve["label"], "AUROC", curve["auroc"])
        axes.plot(curve["fpr"], curve["tpr"], color=color, linestyle=line, linewidth=1.6, label=label)
    _unit(axes, "false positive rate (1 - specificity)", "true positive rate (sensitivity)")


def precision_recall(given: Sequence[Curves]) -> Panel:
    """The precision-recall curve of each label."""
    data = {"curves": [one.precision_recall for one in given]}
    return Panel("pr", "Precision and recall", "precision_recall", data)


def draw_precision_recall(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `precision_recall`; of one curve also what chance gives."""
    if len(data["curves"]) == 1:
        axes.axhline(data["curves"][0]["prevalence"], color=style.GREY, linewidth=0.8, linestyle=":", label="chance")
    for curve, color, line in colored(data["curves"]):
        label = _labelled(curve["label"], "AUPRC", curve["average_precision"])
        axes.step(
            curve["recall"], curve["precision"], where="pre", color=color, linestyle=line, linewidth=1.6, label=label
        )
    _unit(axes, "recall", "precision")


def threshold(given: Ranking, tuned: float | None, tuned_on: str) -> Panel:
    """Rates over the threshold of a score, with the default threshold 0.5 and the tuned one."""
    names = rankings.Rates._fields
    columns = dict(zip(names, rankings.thinned(*rankings.rates(given))))
    return Panel("threshold", "Threshold", "threshold", {**columns, "tuned": tuned, "tuned_on": tuned_on})


def draw_threshold(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `threshold`."""
    names = [name for name in rankings.Rates._fields if name != "threshold"]
    for name, color, _ in colored(names):
        axes.plot(data["threshold"], data[name], color=color, linewidth=1.6, label=name.replace("f1", "F1"))
    axes.axvline(0.5, color=style.GREY, linewidth=0.8, linestyle=":", label="0.5")
    if data["tuned"] is not None:
        label = f"{data['tuned']:.3g}, best F1 on {data['tuned_on']}"
        axes.axvline(data["tuned"], color="black", linewidth=1.0, linestyle="--", label=label)
    _unit(axes, "threshold of the probability", "rate")


def _labelled(label: str, name: str, value: float | None) -> str:
    number = "not defined" if value is None or value != value else f"{value:.3f}"
    return f"{label}: {name} {number}" if label else f"{name} {number}"


def _unit(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
