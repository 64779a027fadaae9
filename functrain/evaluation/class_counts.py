"""What a confusion matrix says, of one matrix or of many replicates at once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation import bootstrap
from functrain.evaluation.quotients import share

Numbers = NDArray[np.float64]


class ClassCounts(NamedTuple):
    """Examples of each class, each `[..., C]`.

    Attributes:
        hits: of the class, and predicted as it.
        support: of the class.
        predicted: predicted as it.
    """

    hits: Numbers
    support: Numbers
    predicted: Numbers


def counts_of(confusion: Numbers) -> ClassCounts:
    """The counts of a confusion matrix `[..., C, C]`: a row for each true class, a column for each predicted one."""
    return ClassCounts(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1), confusion.sum(-2))


def replicates_of(confusion: Numbers) -> ClassCounts:
    """The counts of bootstrap replicates of a confusion matrix `[C, C]`, each `[R, C]`."""
    rows, columns = np.nonzero(confusion)
    same, classes = rows == columns, len(confusion)
    found = [
        ClassCounts(
            _summed(drawn[:, same], rows[same], classes),
            _summed(drawn, rows, classes),
            _summed(drawn, columns, classes),
        )
        for drawn in bootstrap.counts_in_parts(confusion[rows, columns])
    ]
    return ClassCounts(*map(np.concatenate, zip(*found)))


def _summed(values: Numbers, places: NDArray[np.int64], classes: int) -> Numbers:
    """Sums `[R, classes]` of the columns of values `[R, M]` that have the same place."""
    result = np.zeros((len(values), classes))
    order = np.argsort(places, kind="stable")
    found, starts = np.unique(places[order], return_index=True)
    if len(found):
        result[:, found] = np.add.reduceat(values[:, order], starts, axis=1)
    return result


def per_class(counts: ClassCounts) -> dict[str, Numbers]:
    """Scores of each class, `[..., C]`; 0 where there is nothing to have a share of, as scikit-learn has it.

    Example:
        >>> per_class(counts_of(np.array([[3.0, 1.0], [0.0, 4.0]])))["precision"].tolist()
        [1.0, 0.8]
    """
    hits, support, predicted = counts
    total = support.sum(-1, keepdims=True)
    return {
        "precision": share(hits, predicted),
        "recall": share(hits, support),
        "f1": share(2 * hits, support + predicted),
        "specificity": share(total - support - predicted + hits, total - support),
    }


def share_intervals(counts: ClassCounts) -> dict[str, list[bootstrap.Interval | None]]:
    """Intervals of those scores of each class that are shares of examples; counts `[C]`."""
    hits, support, predicted = counts
    total = support.sum(-1)
    parts = {
        "precision": (hits, predicted),
        "recall": (hits, support),
        "specificity": (total - support - predicted + hits, total - support),
    }
    return {name: [bootstrap.share_interval(*pair) for pair in zip(*both)] for name, both in parts.items()}


def overall(counts: ClassCounts) -> dict[str, Numbers]:
    """Scores of all classes together, `[...]`. Means are over the classes that are true or predicted somewhere.

    Returns:
        accuracy, balanced_accuracy (the mean recall of the true classes), precision, recall and f1 (plain means over
        the classes), matthews_corrcoef, cohen_kappa; named and defined as in scikit-learn.
    """
    hits, support, predicted = counts
    scores, total = per_class(counts), support.sum(-1)
    chance = (support * predicted).sum(-1)
    right = hits.sum(-1)
    spread = np.sqrt((total**2 - (predicted**2).sum(-1)) * (total**2 - (support**2).sum(-1)))
    there = support + predicted > 0
    means = {name: share((scores[name] * there).sum(-1), there.sum(-1)) for name in ("precision", "recall", "f1")}
    return {
        "accuracy": share(right, total),
        "balanced_accuracy": share((scores["recall"] * (support > 0)).sum(-1), (support > 0).sum(-1)),
        **means,
        "matthews_corrcoef": share(right * total - chance, spread),
        "cohen_kappa": share(right * total - chance, total**2 - chance),
    }
