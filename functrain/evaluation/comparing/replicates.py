"""Replicates of all numbers of a report, drawn alike for all models: a replicate takes the same examples of each."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation import bootstrap, class_counts, rankings
from functrain.evaluation.areas import AREAS, drawn_areas
from functrain.evaluation.calibrations import CalibrationSums
from functrain.evaluation.class_counts import ClassCounts
from functrain.evaluation.quotients import ratio
from functrain.evaluation.reports import Report, binary, classification, language, regression, segmentation

Numbers = NDArray[np.float64]
Arrays = Mapping[str, NDArray[np.generic]]
_SMALLEST = np.finfo(float).tiny


def replicates(report: Report) -> dict[str, Numbers]:
    """Of each number of a report `[R]`. Examples are drawn; of more than 2,000, random blocks of them.

    Reports of equally many examples share their draws, so that the difference of two of them has the spread that
    paired examples give it.
    """
    return _OF_TASK[report.task](report.scores)


def _classification(scores: Arrays) -> dict[str, Numbers]:
    shares, truth = np.asarray(scores["probabilities"], float), np.asarray(scores["targets"], np.int64)
    block, draws = bootstrap.shared_draws(len(truth))
    classes, found, rows = shares.shape[1], shares.argmax(1), np.arange(len(truth))
    right = found == truth
    counts = ClassCounts(
        _drawn_counts(truth[right], block[right], draws, classes),
        _drawn_counts(truth, block, draws, classes),
        _drawn_counts(found, block, draws, classes),
    )
    of_truth = np.maximum(shares[rows, truth], _SMALLEST)
    brier = (shares**2).sum(1) - 2 * shares[rows, truth] + 1
    result = class_counts.overall(counts) | _proper(-np.log(of_truth), brier, block, draws)
    result["calibration_error"] = _calibration(shares.max(1), right.astype(float))
    present = np.unique(truth)
    if len(present) <= classification.WITH_INTERVAL:
        areas = [_areas(shares[:, label], truth == label, block, draws, classification.GROUPS) for label in present]
        result |= {name: np.mean([one[name] for one in areas], 0) for name in AREAS}
    return result


def _binary(scores: Arrays) -> dict[str, Numbers]:
    counted = np.asarray(scores["counted"], bool)
    examples, labels = counted.shape
    block, draws = bootstrap.shared_draws(examples)
    block = np.repeat(block, labels).reshape(counted.shape)[counted]
    chances, truth = np.asarray(scores["probabilities"], float)[counted], np.asarray(scores["targets"], bool)[counted]
    said = chances > binary.DEFAULT
    confused = _drawn_counts(2 * truth + said, block, draws, 4).reshape(-1, 2, 2)
    of_truth = np.where(truth, chances, 1 - chances)
    return {
        **binary.scores_of(class_counts.counts_of(confused)),
        **_areas(chances, truth, block, draws, binary.GROUPS),
        **_proper(-np.log(np.maximum(of_truth, _SMALLEST)), (1 - of_truth) ** 2, block, draws),
        "calibration_error": _calibration(chances, truth.astype(float)),
    }


def _regression(scores: Arrays) -> dict[str, Numbers]:
    predicted, truth = (np.asarray(scores[name], float) for name in ("predictions", "targets"))
    sums = regression.sums_of(predicted - predicted.mean(), truth - truth.mean(), predicted - truth)
    return regression.scores_of(_drawn_sums(sums.sum(2).T))


def _segmentation(scores: Arrays) -> dict[str, Numbers]:
    return segmentation.means_of(np.stack([_drawn_sums(scores[name]) for name in segmentation.KEPT], 1))


def _language(scores: Arrays) -> dict[str, Numbers]:
    return language.scores_of(_drawn_sums(np.stack([scores[name] for name in ("tokens", "loss", "right")], 1)))


_OF_TASK: dict[str, Callable[[Arrays], dict[str, Numbers]]] = {
    "classification": _classification,
    "binary_classification": _binary,
    "regression": _regression,
    "segmentation": _segmentation,
    "language_modelling": _language,
}


def _drawn_counts(values: NDArray[np.int64], block: NDArray[np.int64], draws: Numbers, kinds: int) -> Numbers:
    """How often each of some kinds occurs in each replicate, `[R, kinds]`, of a kind for each example."""
    size = draws.shape[1] * kinds
    return draws @ np.bincount(block * kinds + values, minlength=size).reshape(-1, kinds).astype(float)


def _drawn_sums(values: NDArray[Any]) -> Numbers:
    """Sums over the examples of each replicate, `[R, K]`, of a row for each example."""
    block, draws = bootstrap.shared_draws(len(values))
    columns = [np.bincount(block, column, draws.shape[1]) for column in np.asarray(values, float).T]
    return draws @ np.stack(columns, 1)


def _proper(losses: Numbers, brier: Numbers, block: NDArray[np.int64], draws: Numbers) -> dict[str, Numbers]:
    columns = (np.ones_like(losses), losses, brier)
    count, *sums = (draws @ np.bincount(block, column, draws.shape[1]) for column in columns)
    return {name: ratio(one, count) for name, one in zip(("log_loss", "brier_score"), sums)}


def _areas(
    scores: Numbers, positive: NDArray[np.bool_], block: NDArray[np.int64], draws: Numbers, groups: int
) -> dict[str, Numbers]:
    ranked = rankings.ranking(scores, positive)
    place = block * groups + rankings.groups_of(scores, ranked, groups)
    return drawn_areas(ranked, place, positive, draws, groups)


def _calibration(sure: Numbers, right: Numbers) -> Numbers:
    sums = CalibrationSums(len(sure))
    sums.add(sure, right)
    return sums.replicates()
