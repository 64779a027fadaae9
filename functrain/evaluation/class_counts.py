"""What a confusion matrix says, of one matrix or of many replicates at once."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap
from functrain.metrics import class_scores

Numbers = NDArray[np.float64]
_OF_CLASSES = {
    "precision": class_scores.precision,
    "recall": class_scores.recall,
    "f1": class_scores.dice,
    "specificity": class_scores.specificity,
}


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


def sums_of(counts: ClassCounts) -> Tensor:
    """The counts as the formulas of `functrain.metrics.class_scores` take them, `[4, C, ...]`."""
    hits, support, predicted = (np.moveaxis(part, -1, 0) for part in counts)
    return torch.from_numpy(np.stack([hits, predicted, support, np.broadcast_to(support.sum(0), support.shape)]))


def per_class(counts: ClassCounts) -> dict[str, Numbers]:
    """Scores of each class, `[..., C]`; 0 where there is nothing to have a share of, as scikit-learn has it.

    Example:
        >>> per_class(counts_of(np.array([[3.0, 1.0], [0.0, 4.0]])))["precision"].tolist()
        [1.0, 0.8]
    """
    sums = sums_of(counts)
    return {name: np.moveaxis(formula(sums).numpy(), 0, -1) for name, formula in _OF_CLASSES.items()}


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
    sums = sums_of(counts)
    present = sums[1] + sums[2] > 0
    means = {name: class_scores.macro(_OF_CLASSES[name](sums), present) for name in ("precision", "recall", "f1")}
    found = {
        "accuracy": class_scores.accuracy(sums),
        "balanced_accuracy": class_scores.balanced_accuracy(sums),
        **means,
        "matthews_corrcoef": class_scores.matthews_corrcoef(sums),
        "cohen_kappa": class_scores.cohen_kappa(sums),
    }
    return {name: values.nan_to_num(0.0).numpy() for name, values in found.items()}
