"""The report of a choice of one of several classes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap, calibrations, class_counts, rankings
from functrain.evaluation.panels import Panel, confusion, curves, probabilities
from functrain.evaluation.quotients import ratio
from functrain.evaluation.reports.report import (
    Number,
    Report,
    Table,
    names_of,
    numbers_of,
    refuse_nan,
    refuse_strangers,
)
from functrain.foundation.errors import DataError

Numbers = NDArray[np.float64]
GROUPS = 200  # of scores, for intervals of areas
CURVES = 12  # of classes that a figure shows
WITH_INTERVAL = 100  # classes; the intervals of areas take some 50 ms for each


class Classification:
    """Collects logits `[B, C]` and classes `[B]`.

    Args:
        ignore_index: class of a target that does not count.
    """

    def __init__(self, ignore_index: int = -100) -> None:
        self._ignore = ignore_index
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Take a batch."""
        if scores.ndim != 2 or targets.shape != scores.shape[:1]:
            raise DataError(
                f"a report of classes takes logits [B, C] and classes [B]; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        self._logits.append(scores)
        self._targets.append(targets)

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:  # noqa: ARG002
        """The report over all batches."""
        logits, targets = torch.cat(self._logits), torch.cat(self._targets)
        counted = targets != self._ignore
        refuse_nan(logits[counted])
        refuse_strangers(targets[counted], logits.shape[1], self._ignore)
        wide, truth = logits[counted].double(), targets[counted].long().numpy()
        if not len(truth):
            raise DataError("there is no target to report on: every target is ignore_index")
        names = names_of(logits.shape[1], labels, "classes")
        return _report(wide.softmax(1).numpy(), wide.log_softmax(1).numpy(), truth, names)


def _report(shares: Numbers, logs: Numbers, truth: NDArray[np.int64], names: list[str]) -> Report:
    classes, found = shares.shape[1], shares.argmax(1)
    confused = np.bincount(truth * classes + found, minlength=classes**2).reshape(classes, classes).astype(float)
    counts, replicates = class_counts.counts_of(confused), class_counts.replicates_of(confused)
    sure, right = shares.max(1), (found == truth).astype(float)
    alone = {"accuracy": bootstrap.share_interval(right.sum(), len(right))}
    numbers = numbers_of(class_counts.overall(counts), class_counts.overall(replicates), alone)
    ranked = {
        label: rankings.ranking(shares[:, label], truth == label) for label in range(classes) if counts.support[label]
    }
    numbers += _areas(shares, truth, ranked)
    numbers += proper_scores(-logs[np.arange(len(truth)), truth], _brier(shares, truth), sure, right)
    scores, spread = class_counts.per_class(counts), class_counts.per_class(replicates)
    shown = {names[label]: one for label, one in list(ranked.items())[:CURVES]}
    panels: list[Panel] = [confusion.confusion_matrix(confused, names)]
    panels += [curves.roc(shown), curves.precision_recall(shown)]
    panels += [probabilities.calibration(sure, right, "probability of the predicted class")]
    panels += [
        probabilities.histogram(
            {"right": sure[right > 0], "wrong": sure[right == 0]}, "probability of the predicted class"
        )
    ]
    return Report(
        task="classification",
        examples=len(truth),
        numbers=numbers,
        tables=(_table(names, scores, spread, class_counts.share_intervals(counts), counts.support, ranked),),
        panels=tuple(panels),
        scores={"probabilities": shares.astype(np.float32), "targets": truth},
        predictions=Table(
            "predictions",
            "Predictions",
            ("example", "target", "predicted", *(f"p({name})" for name in names)),
            [[i, names[t], names[p], *row] for i, (t, p, row) in enumerate(zip(truth, found, shares.tolist()))],
        ),
    )


def _areas(shares: Numbers, truth: NDArray[np.int64], ranked: dict[int, rankings.Ranking]) -> tuple[Number, ...]:
    """AUROC and AUPRC of each class against the rest, as plain means over the classes that occur."""
    block, draws = bootstrap.shared_draws(len(truth))
    areas = {"auroc": rankings.auroc, "auprc": rankings.average_precision}
    drawn: dict[str, list[Numbers]] = {name: [] for name in areas}  # of each class, less what the grouping costs
    for label in ranked if len(ranked) <= WITH_INTERVAL else ():
        group = rankings.groups_of(shares[:, label], GROUPS)
        groups = int(group.max()) + 1
        place = (block * groups + group) * 2 + (truth == label)
        counts = np.bincount(place, minlength=draws.shape[1] * groups * 2).reshape(draws.shape[1], -1)
        negatives, positives = np.moveaxis((draws @ counts).reshape(len(draws), groups, 2), -1, 0)
        whole = np.moveaxis(counts.sum(0).reshape(groups, 2), -1, 0)
        for name, area in areas.items():
            drawn[name].append(area(positives, negatives) - area(whole[1], whole[0]) + area(*ranked[label][1:]))
    result = []
    for name, area in areas.items():
        found = [float(area(*one[1:])) for one in ranked.values()]
        defined = [value for value in found if not np.isnan(value)]
        value = float(np.mean(defined)) if defined else float("nan")
        result.append(Number(name, value, bootstrap.interval(np.mean(drawn[name], 0)) if drawn[name] else None))
    return tuple(result)


def _brier(shares: Numbers, truth: NDArray[np.int64]) -> Numbers:
    """The Brier score of each example."""
    return (shares**2).sum(1) - 2 * shares[np.arange(len(truth)), truth] + 1


def proper_scores(losses: Numbers, brier: Numbers, sure: Numbers, right: Numbers) -> tuple[Number, ...]:
    """Log loss, Brier score and expected calibration error.

    Args:
        losses, brier: of each example, `[N]`.
        sure: probability of what is said, `[N]`.
        right: whether that is so, 0 or 1, `[N]`.
    """
    drawn = bootstrap.sums(np.stack([np.ones_like(losses), losses, brier], 1))
    block, draws = bootstrap.shared_draws(len(sure))
    place, size = block * calibrations.BINS + calibrations.bin_of(sure), draws.shape[1] * calibrations.BINS
    sums = [
        np.bincount(place, column, size).reshape(-1, calibrations.BINS) for column in (np.ones_like(sure), sure, right)
    ]
    spread = calibrations.error_of(np.stack([draws @ one for one in sums], -1))
    error = calibrations.expected_calibration_error(sure, right)
    # A replicate's error is larger by its own noise; the interval is that of its distance from the mean.
    moved = bootstrap.interval(np.maximum(spread - spread.mean() + error, 0))
    return (
        Number("log_loss", float(losses.mean()), bootstrap.interval(ratio(drawn[:, 1], drawn[:, 0]))),
        Number("brier_score", float(brier.mean()), bootstrap.interval(ratio(drawn[:, 2], drawn[:, 0]))),
        Number("calibration_error", error, moved),
    )


def _table(
    names: list[str],
    scores: dict[str, Numbers],
    spread: dict[str, Numbers],
    known: dict[str, list[bootstrap.Interval | None]],
    support: Numbers,
    ranked: dict[int, rankings.Ranking],
) -> Table:
    header: tuple[str, ...] = ("class", "support")
    for name in scores:
        header += (name, f"{name} 95 %")
    rows = []
    for label, name in enumerate(names):
        row = [name, int(support[label])]
        for key in scores:
            found = known[key][label] if key in known else bootstrap.interval(spread[key][:, label])
            row += [float(scores[key][label]), found]
        one = ranked.get(label)
        rows.append([*row, float(rankings.auroc(*one[1:])) if one is not None else None])
    return Table("classes", "Classes", (*header, "auroc"), rows)
