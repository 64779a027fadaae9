"""Tests of two models on the same examples, and the correction for many tests.

A p-value is the chance of a difference at least as large as the one that was found, if the models were equally good.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.bootstrap import Interval, interval

Numbers = NDArray[np.float64]
Truths = NDArray[np.bool_]
_NORMAL = 1.959963984540054  # the quantile of the normal distribution for 95 %


class Outcome(NamedTuple):
    """What a test found.

    Attributes:
        p: the p-value; NaN if the test is not defined.
        interval: of the difference, with a confidence of 95 %; None if the test gives none.
    """

    p: float
    interval: Interval | None = None


def mcnemar(right: Truths, other: Truths) -> Outcome:
    """McNemar's exact test: of the examples that one model alone gets right, each is either model's with chance 1/2.

    Args:
        right, other: whether each model is right, `[N]`.

    Example:
        >>> mcnemar(np.array([True] * 9 + [False]), np.array([False] * 9 + [True])).p  # 2 * (1 + 10) / 2**10
        0.021484375

    References:
        McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".
    """
    from scipy.special import bdtr  # takes a moment to import

    fewer, more = sorted((int((right & ~other).sum()), int((other & ~right).sum())))
    if fewer == more:
        return Outcome(1.0)
    return Outcome(min(1.0, 2 * float(bdtr(fewer, fewer + more, 0.5))))


def delong(scores: Numbers, other: Numbers, positive: Truths) -> Outcome:
    """DeLong's test: whether two areas under ROC curves of the same examples differ.

    Args:
        scores, other: each model's scores, `[N]`, higher for the positive class.
        positive: `[N]`; at least two of each kind, else the test is not defined.

    Example:
        >>> positive = np.array([False, False, True, True])
        >>> round(delong(np.arange(4.0), np.array([0.0, 2.0, 1.0, 3.0]), positive).p, 4)
        0.4795

    References:
        DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver operating
        characteristic curves: a nonparametric approach". Sun and Xu 2014 compute it from ranks, as it is done here.
    """
    if min(positive.sum(), (~positive).sum()) < 2:
        return Outcome(float("nan"))
    parts = [_placements(one, positive) for one in (scores, other)]
    of_positive, of_negative = (ours - theirs for ours, theirs in zip(*parts))
    difference = float(of_positive.mean())
    variance = float(of_positive.var(ddof=1) / len(of_positive) + of_negative.var(ddof=1) / len(of_negative))
    spread = math.sqrt(variance)
    half = _NORMAL * spread
    p = math.erfc(abs(difference) / spread / math.sqrt(2)) if spread else float(difference == 0)
    return Outcome(p, Interval(difference - half, difference + half))


def _placements(scores: Numbers, positive: Truths) -> tuple[Numbers, Numbers]:
    """For each positive example the share of negative ones below it, and for each negative one that of positive above.

    A tie counts by half. The mean of either is the area.
    """
    above, below = scores[positive], scores[~positive]
    return _share_below(np.sort(below), above), 1 - _share_below(np.sort(above), below)


def _share_below(ordered: Numbers, scores: Numbers) -> Numbers:
    below, at_most = np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")
    return (below + at_most) / (2 * len(ordered))


def bootstrap_test(differences: Numbers) -> Outcome:
    """Twice the share of replicates on the other side of 0; both the interval and the test are made of the same ones.

    Args:
        differences: of replicates that take the same examples of both models, `[R]`. A p-value is at least
            `2 / (R + 1)`.

    Example:
        >>> bootstrap_test(np.arange(-9.0, 90.0))
        Outcome(p=0.22, interval=Interval(low=-6.55, high=86.55))

    References:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 15.
    """
    found = interval(differences)
    if found is None:
        return Outcome(float("nan"))
    defined = differences[np.isfinite(differences)]
    beyond = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return Outcome(min(1.0, 2 * (beyond + 1) / (len(defined) + 1)), found)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: with a limit of 5 %, all of them together err in at most 5 % of studies.

    Args:
        values: of a family of tests; one that is NaN does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03, float("nan")])
        [0.03, 0.06, 0.06, nan]

    References:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted((i for i, p in enumerate(values) if not math.isnan(p)), key=lambda i: values[i])
    result, least = [float("nan")] * len(values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * values[i]))
        result[i] = least
    return result
