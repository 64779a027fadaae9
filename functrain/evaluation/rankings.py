"""What scores say about two classes at each threshold: ROC, precision and recall, the threshold to take."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.quotients import ratio
from functrain.metrics.ranking import Curve, precision_area, roc_area

Numbers = NDArray[np.float64]
POINTS = 400  # of a drawn curve


class Ranking(NamedTuple):
    """Counts at each distinct score, the highest first.

    Attributes:
        thresholds: the scores, `[K]`.
        positives: how many positive examples have this score, `[K]`.
        negatives: how many negative ones, `[K]`.
    """

    thresholds: Numbers
    positives: Numbers
    negatives: Numbers


def ranking(scores: Numbers, positive: NDArray[np.bool_]) -> Ranking:
    """Count the examples of each score.

    Args:
        scores: `[N]`, higher for the positive class.
        positive: `[N]`.

    Raises:
        ValueError: if a score is NaN.

    Example:
        >>> ranking(np.array([0.1, 0.8, 0.8]), np.array([False, True, False]))
        Ranking(thresholds=array([0.8, 0.1]), positives=array([1., 0.]), negatives=array([1., 1.]))
    """
    if np.isnan(scores).any():
        raise ValueError(f"a score must be a number; {int(np.isnan(scores).sum())} of {len(scores)} are NaN")
    found = [np.unique(scores[which], return_counts=True) for which in (positive, ~positive)]
    thresholds = np.union1d(found[0][0], found[1][0])
    counts = []
    for values, number in found:
        counts.append(np.zeros(len(thresholds)))
        counts[-1][np.searchsorted(thresholds, values)] = number
    return Ranking(thresholds[::-1], counts[0][::-1], counts[1][::-1])


def coarser(given: Ranking, groups: int) -> Ranking:
    """Scores that lie side by side as one, so that at most `groups` are left."""
    place = _group_of(len(given.thresholds), groups)
    positives, negatives = (np.bincount(place, counts).astype(float) for counts in given[1:])
    return Ranking(given.thresholds[np.unique(place, return_index=True)[1]], positives, negatives)


def groups_of(scores: Numbers, given: Ranking, groups: int) -> NDArray[np.int64]:
    """A number for each score `[N]`, 0 for the highest; scores that lie side by side share one.

    Args:
        scores: `[N]`.
        given: their ranking.
        groups: so many at most.
    """
    group = _group_of(len(given.thresholds), groups)
    lowest = given.thresholds[np.unique(group, return_index=True)[1][1:] - 1]  # of each group but the last
    return np.searchsorted(-lowest, -scores, side="left")


def _group_of(distinct: int, groups: int) -> NDArray[np.int64]:
    return np.arange(distinct) * min(groups, distinct) // max(distinct, 1)


def auroc(positives: Numbers, negatives: Numbers) -> Numbers:
    """Area under the ROC curve: how often a positive example has the higher score, ties counted by half.

    Args:
        positives, negatives: counts at each score, highest first, `[..., K]`.

    Returns:
        `[...]`; NaN where a class has no example.

    Example:
        >>> float(auroc(np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])))
        0.5

    References:
        Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating characteristic curve".
    """
    pairs = positives.sum(-1) * negatives.sum(-1)
    return ratio(roc_area(_whole(positives, negatives)) / 2, pairs)


def average_precision(positives: Numbers, negatives: Numbers) -> Numbers:
    """Precision at each positive example's score, averaged over them: scikit-learn's `average_precision_score`.

    Arguments and results as of `auroc`; NaN where there is no positive example.
    """
    return ratio(precision_area(_whole(positives, negatives)), positives.sum(-1))


def _whole(positives: Numbers, negatives: Numbers) -> Curve:
    return Curve(np.cumsum(positives, -1, float), np.cumsum(negatives, -1, float), 0.0, 0.0)


def roc_curve(given: Ranking) -> tuple[Numbers, Numbers]:
    """False and true positive rate at each threshold, from (0, 0) to (1, 1)."""
    return tuple(np.append(0.0, ratio(np.cumsum(c), c.sum())) for c in (given.negatives, given.positives))  # type: ignore[return-value]


def precision_recall_curve(given: Ranking) -> tuple[Numbers, Numbers]:
    """Recall and precision at each threshold."""
    found, taken = np.cumsum(given.positives), np.cumsum(given.positives + given.negatives)
    return ratio(found, given.positives.sum()), found / taken


class Rates(NamedTuple):
    """What taking scores of at least a threshold for positive gives, each `[K]`."""

    threshold: Numbers
    sensitivity: Numbers
    specificity: Numbers
    precision: Numbers
    f1: Numbers


def rates(given: Ranking) -> Rates:
    """The rates at each distinct score as the threshold."""
    found, false = np.cumsum(given.positives), np.cumsum(given.negatives)
    positives, negatives = given.positives.sum(), given.negatives.sum()
    return Rates(
        given.thresholds,
        ratio(found, positives),
        1 - ratio(false, negatives),
        found / (found + false),
        2 * found / (found + false + positives),
    )


def best_threshold(given: Ranking) -> float:
    """The threshold with the highest F1; half way to the next lower score, so that it separates.

    Example:
        >>> best_threshold(ranking(np.array([0.9, 0.6, 0.4, 0.2]), np.array([True, True, False, False])))
        0.5
    """
    best = int(np.argmax(rates(given).f1))
    lower = given.thresholds[min(best + 1, len(given.thresholds) - 1)]
    return float((given.thresholds[best] + lower) / 2)


def thinned(*columns: Numbers) -> list[list[float]]:
    """At most `POINTS` places of columns of one length, the first and the last among them."""
    if not len(columns[0]):
        return [[] for _ in columns]
    chosen = np.unique(np.linspace(0, len(columns[0]) - 1, POINTS).round().astype(int))
    return [column[chosen].tolist() for column in columns]
