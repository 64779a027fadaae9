"""Replicates of areas under curves, from draws that several statistics of the same examples share."""

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation import rankings

Numbers = NDArray[np.float64]
AREAS = {"auroc": rankings.auroc, "auprc": rankings.average_precision}


def drawn_areas(
    given: rankings.Ranking, place: NDArray[np.int64], positive: NDArray[np.bool_], draws: Numbers, groups: int
) -> dict[str, Numbers]:
    """Replicates of each of `AREAS`, `[R]`.

    Args:
        given: the ranking of the scores, of which the areas themselves are.
        place: of each score, `[N]`: its block times `groups` plus its group of `rankings.groups_of`.
        positive: `[N]`.
        draws: how often each replicate takes each block, `[R, B]`; see `bootstrap.shared_draws`.
        groups: scores that lie side by side count as one, so that there are at most so many. A replicate is moved by
            what that changes of the area itself, and stays between 0 and 1.
    """
    counts = np.bincount(place * 2 + positive, minlength=draws.shape[1] * groups * 2).reshape(draws.shape[1], -1)
    negatives, positives = np.moveaxis((draws @ counts).reshape(len(draws), groups, 2), -1, 0)
    whole = np.moveaxis(counts.sum(0).reshape(groups, 2), -1, 0)
    return {
        name: np.clip(area(positives, negatives) - area(whole[1], whole[0]) + float(area(*given[1:])), 0.0, 1.0)
        for name, area in AREAS.items()
    }
