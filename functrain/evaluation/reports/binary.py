"""The report of yes or no: one label or several of each example."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap, class_counts, rankings
from functrain.evaluation.panels import Panel, confusion, curves, probabilities
from functrain.evaluation.reports.classification import proper_scores
from functrain.evaluation.reports.report import Number, Report, Table, names_of, numbers_of, refuse_nan
from functrain.foundation.errors import DataError

Numbers = NDArray[np.float64]
DEFAULT = 0.5
GROUPS = 2000  # of scores, for intervals of areas


class BinaryClassification:
    """Collects logits and labels 0 or 1 of one shape: `[B]`, `[B, 1]`, or `[B, L]` for L labels of each example.

    Args:
        ignore_index: label that does not count.
    """

    def __init__(self, ignore_index: int = -100) -> None:
        self._ignore = ignore_index
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Take a batch."""
        if scores.numel() != targets.numel():
            raise DataError(
                f"a report of labels takes logits and labels of one shape; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        self._logits.append(scores.reshape(len(targets), -1))
        self._targets.append(targets.reshape(len(targets), -1))

    def ranking(self) -> rankings.Ranking:
        """The probabilities of all labels with their truth, as for choosing a threshold."""
        chances, truth, counted = self._all()
        return rankings.ranking(chances[counted], truth[counted])

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:
        """The report over all batches."""
        chances, truth, counted = self._all()
        count = chances.shape[1]
        if not counted.any():
            raise DataError("there is no label to report on: every label is ignore_index")
        names = [""] if labels is None and count == 1 else names_of(count, labels, "labels of each example")
        alone = [rankings.ranking(chances[counted[:, i], i], truth[counted[:, i], i]) for i in range(count)]
        whole = self.ranking()
        flat, said = truth[counted], chances[counted]
        numbers = _at(said, flat, DEFAULT) + _areas(whole) + _proper(said, flat)
        tables = [_table(names, chances, truth, counted, alone)] if count > 1 else []
        if tuned is not None:
            tables.append(_tuned(said, flat, tuned))
        return Report(
            task="binary_classification",
            examples=len(truth),
            numbers=numbers,
            tables=tuple(tables),
            panels=_panels(said, flat, whole, dict(zip(names, alone)), tuned),
            scores={"probabilities": chances.astype(np.float32), "targets": truth, "counted": counted},
            predictions=_predictions(chances, truth, tuned if tuned is not None else DEFAULT),
        )

    def _all(self) -> tuple[Numbers, NDArray[np.bool_], NDArray[np.bool_]]:
        targets = torch.cat(self._targets)
        refuse_nan(torch.cat(self._logits))
        chances = torch.cat(self._logits).double().sigmoid().numpy()
        return chances, (targets >= 0.5).numpy(), (targets != self._ignore).numpy()


def _confusion(chances: Numbers, truth: NDArray[np.bool_], threshold: float) -> Numbers:
    said = (chances > threshold if threshold == DEFAULT else chances >= threshold).astype(int)
    return np.bincount(2 * truth + said, minlength=4).reshape(2, 2).astype(float)


def _scores(counts: class_counts.ClassCounts) -> dict[str, Numbers]:
    """Scores of the positive class, from counts `[..., 2]`."""
    each, both = class_counts.per_class(counts), class_counts.overall(counts)
    names = ("accuracy", "balanced_accuracy", "matthews_corrcoef")
    positive = {name: each[name][..., 1] for name in ("precision", "recall", "specificity", "f1")}
    return {**{name: both[name] for name in names}, **positive}


def _at(chances: Numbers, truth: NDArray[np.bool_], threshold: float) -> tuple[Number, ...]:
    confused = _confusion(chances, truth, threshold)
    counts = class_counts.counts_of(confused)
    known = {name: of_classes[1] for name, of_classes in class_counts.share_intervals(counts).items()}
    known["accuracy"] = bootstrap.share_interval(counts.hits.sum(), confused.sum())
    return numbers_of(_scores(counts), _scores(class_counts.replicates_of(confused)), known)


def _areas(whole: rankings.Ranking) -> tuple[Number, ...]:
    coarse = rankings.coarser(whole, GROUPS)
    drawn = [bootstrap.counts(counts, seed=seed) for seed, counts in enumerate(coarse[1:])]
    return tuple(
        Number(name, float(area(*whole[1:])), bootstrap.interval(area(*drawn) - area(*coarse[1:]) + area(*whole[1:])))
        for name, area in (("auroc", rankings.auroc), ("auprc", rankings.average_precision))
    )


def _proper(chances: Numbers, truth: NDArray[np.bool_]) -> tuple[Number, ...]:
    of_truth = np.where(truth, chances, 1 - chances)
    with np.errstate(divide="ignore"):
        losses = -np.log(of_truth)
    return proper_scores(losses, (1 - of_truth) ** 2, chances, truth.astype(float))


def _table(
    names: list[str],
    chances: Numbers,
    truth: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    alone: list[rankings.Ranking],
) -> Table:
    rows = []
    for i, (name, ranked) in enumerate(zip(names, alone)):
        scores = _scores(
            class_counts.counts_of(_confusion(chances[counted[:, i], i], truth[counted[:, i], i], DEFAULT))
        )
        areas = [float(area(*ranked[1:])) for area in (rankings.auroc, rankings.average_precision)]
        rows.append([name, int(ranked.positives.sum()), *(float(scores[key]) for key in scores), *areas])
    return Table("labels", "Labels", ("label", "positive", *scores, "auroc", "auprc"), rows)


def _tuned(chances: Numbers, truth: NDArray[np.bool_], tuned: float) -> Table:
    columns = {f"{threshold:.4g}": _at(chances, truth, threshold) for threshold in (DEFAULT, tuned)}
    rows = [
        [numbers[0].name, *(part for number in numbers for part in (number.value, number.interval))]
        for numbers in zip(*columns.values())
    ]
    header = [part for name in columns for part in (f"at {name}", f"at {name} 95 %")]
    return Table(
        "thresholds", "Thresholds: 0.5, and the one with the best F1 on the tuning data", ("score", *header), rows
    )


def _panels(
    said: Numbers,
    flat: NDArray[np.bool_],
    whole: rankings.Ranking,
    alone: dict[str, rankings.Ranking],
    tuned: float | None,
) -> tuple[Panel, ...]:
    return (
        confusion.confusion_matrix(_confusion(said, flat, DEFAULT), ["no", "yes"]),
        curves.roc(alone),
        curves.precision_recall(alone),
        probabilities.calibration(said, flat.astype(float), "predicted probability"),
        curves.threshold(whole, tuned, "validation data"),
        probabilities.histogram({"no": said[~flat], "yes": said[flat]}, "predicted probability"),
    )


def _predictions(chances: Numbers, truth: NDArray[np.bool_], threshold: float) -> Table:
    count = chances.shape[1]
    ends = [f" {i}" for i in range(count)] if count > 1 else [""]
    header = [f"{name}{end}" for end in ends for name in ("target", "predicted", "p")]
    rows = [
        [i, *(part for t, p in zip(row, ps) for part in (int(t), int(p >= threshold), float(p)))]
        for i, (row, ps) in enumerate(zip(truth, chances))
    ]
    return Table("predictions", "Predictions", ("example", *header), rows)
