"""The report of yes or no: one label or several of each example."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap, class_counts, rankings
from functrain.evaluation.array_files import ColumnFile
from functrain.evaluation.kept_rows import BatchRows, as_array
from functrain.evaluation.panels import Panel, confusion, curves, probabilities
from functrain.evaluation.reports.proper_scores import ProperScores
from functrain.evaluation.reports.report import (
    Collector,
    NotANumber,
    Number,
    Report,
    RowsInParts,
    Table,
    names_of,
    numbers_of,
)
from functrain.foundation.errors import DataError

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
DEFAULT = 0.5
GROUPS = 2000  # of scores, for intervals of areas
SAID = "predicted probability"
_LEFT_OUT = -1


class BinaryClassification(Collector):
    """Collects logits and labels 0 or 1 of one shape: `[B]`, `[B, 1]`, or `[B, L]` for L labels of each example."""

    def of_batch(self, scores: Tensor, targets: Tensor) -> BatchRows:
        """Both of them, `[B, L]`."""
        if scores.numel() != targets.numel():
            raise DataError(
                f"a report of labels takes logits and labels of one shape; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        rows = len(targets)
        return BatchRows({"logits": as_array(scores.reshape(rows, -1)), "targets": as_array(targets.reshape(rows, -1))})

    def ranking(self) -> rankings.Ranking:
        """The probabilities of all labels with their truth, as for choosing a threshold."""
        return self._labels().whole()

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:
        """The report over all batches."""
        [count] = self.rows.row_shape("logits")
        names = [""] if labels is None and count == 1 else names_of(count, labels, "labels of each example")
        found = self._labels()
        sums = _Sums(count, found.counted, tuned)
        scores = {
            "probabilities": self.rows.new_file("probabilities", np.float32, [count]),
            "targets": self.rows.new_file("truth", np.bool_, [count]),
            "counted": self.rows.new_file("counted", np.bool_, [count]),
        }
        for part in self._parts():
            sums.add(part)
            for file, values in zip(scores.values(), part):
                file.append(values)
        whole = found.whole()
        alone = [found.of(label) for label in range(count)] if count > 1 else [whole]
        shown = [curves.curves_of(name, ranked) for name, ranked in zip(names, alone)]
        tables = [_table(names, sums.of_labels, shown)] if count > 1 else []
        if tuned is not None:
            tables.append(_tuned(sums.confused, sums.at_tuned, tuned))
        return Report(
            task="binary_classification",
            examples=len(self.rows),
            numbers=_numbers(sums.confused) + _areas(whole) + sums.proper.numbers(),
            tables=tuple(tables),
            panels=_panels(sums, whole, shown, tuned, self._answers(count)),
            scores={name: file.array() for name, file in scores.items()},
            predictions=self._predictions(count, tuned if tuned is not None else DEFAULT),
            threshold=tuned,
        )

    def _answers(self, count: int) -> list[str]:
        """The names of 0 and 1."""
        return list(self._known) if count == 1 and len(self._known) == 2 else ["no", "yes"]

    def _labels(self) -> "_Labels":
        nan, counted = NotANumber(), 0
        for logits, targets in self.rows.parts("logits", "targets"):
            nan.look(logits)
            counted += int((targets != self._ignore).sum())
        nan.refuse()
        if not counted:
            raise DataError("there is no label to report on: every label is ignore_index")
        [count] = self.rows.row_shape("logits")
        chances = self.rows.new_columns("chances", np.float64, len(self.rows), count)
        truth = self.rows.new_columns("truths", np.int8, len(self.rows), count)
        for part in self._parts():
            chances.append(part.chances)
            truth.append(np.where(part.counted, part.truth, _LEFT_OUT))
        return _Labels(chances, truth, counted)

    def _parts(self) -> Iterator["_Part"]:
        for logits, targets in self.rows.parts("logits", "targets"):
            chances = torch.from_numpy(logits).double().sigmoid().numpy()
            yield _Part(chances, targets >= 0.5, targets != self._ignore)

    def _predictions(self, count: int, threshold: float) -> Table:
        ends = [f" {i}" for i in range(count)] if count > 1 else [""]
        header = [f"{name}{end}" for end in ends for name in ("target", "predicted", "p")]

        def rows() -> Iterator[list[list[int | float]]]:
            number = 0
            for part in self._parts():
                yield [
                    [i, *(cell for t, p in zip(row, ps) for cell in (int(t), int(p >= threshold), float(p)))]
                    for i, (row, ps) in enumerate(zip(part.truth, part.chances), number)
                ]
                number += len(part.truth)

        return Table("predictions", "Predictions", ("example", *header), RowsInParts(len(self.rows), rows))


class _Part(NamedTuple):
    """Some examples, each `[n, L]`.

    Attributes:
        chances: probabilities.
        truth: whether the label is 1.
        counted: whether there is one.
    """

    chances: Numbers
    truth: Mask
    counted: Mask


class _Labels(NamedTuple):
    """The labels of all examples, label by label: one at a time is in memory.

    Attributes:
        chances: probabilities `[N, L]`.
        truth: 0, 1, or -1 where there is no label, `[N, L]`.
        counted: how many there are.
    """

    chances: ColumnFile
    truth: ColumnFile
    counted: int

    def of(self, label: int) -> rankings.Ranking:
        """The ranking of a label."""
        return rankings.ranking(*self._column(label))

    def whole(self) -> rankings.Ranking:
        """The ranking of all labels together, which are all in memory."""
        chances, truth = zip(*map(self._column, range(self.chances.columns)))
        return rankings.ranking(np.concatenate(chances), np.concatenate(truth))

    def _column(self, label: int) -> tuple[Numbers, Mask]:
        truth = self.truth.column(label)
        counted = truth != _LEFT_OUT
        return self.chances.column(label)[counted], truth[counted] == 1


class _Sums:
    """What is added up over the examples.

    Attributes:
        of_labels: confusion matrices `[L, 2, 2]` at the threshold 0.5.
        at_tuned: of all labels, `[2, 2]`, at the tuned threshold.
    """

    def __init__(self, count: int, counted: int, tuned: float | None) -> None:
        self._tuned = tuned
        self.of_labels, self.at_tuned = np.zeros((count, 2, 2)), np.zeros((2, 2))
        self.proper = ProperScores(counted)
        self.histogram = probabilities.Histogram("no", "yes")

    @property
    def confused(self) -> Numbers:
        """Of all labels, `[2, 2]`."""
        return self.of_labels.sum(0)

    def add(self, part: _Part) -> None:
        """Some more."""
        self.of_labels += _confusion(part, part.chances > DEFAULT)
        if self._tuned is not None:
            self.at_tuned += _confusion(part, part.chances >= self._tuned).sum(0)
        said, truth = part.chances[part.counted], part.truth[part.counted]
        of_truth = np.where(truth, said, 1 - said)
        with np.errstate(divide="ignore"):
            losses = -np.log(of_truth)
        self.proper.add(losses, (1 - of_truth) ** 2, said, truth.astype(float))
        self.histogram.add("no", said[~truth])
        self.histogram.add("yes", said[truth])


def _confusion(part: _Part, said: Mask) -> Numbers:
    labels = part.truth.shape[1]
    cells = (np.arange(labels) * 4 + 2 * part.truth + said)[part.counted]
    return np.bincount(cells, minlength=4 * labels).reshape(labels, 2, 2).astype(float)


def scores_of(counts: class_counts.ClassCounts) -> dict[str, Numbers]:
    """Scores of the positive class, from counts `[..., 2]`."""
    each, both = class_counts.per_class(counts), class_counts.overall(counts)
    names = ("accuracy", "balanced_accuracy", "matthews_corrcoef")
    positive = {name: each[name][..., 1] for name in ("precision", "recall", "specificity", "f1")}
    return {**{name: both[name] for name in names}, **positive}


def _numbers(confused: Numbers) -> tuple[Number, ...]:
    counts = class_counts.counts_of(confused)
    known = {name: of_classes[1] for name, of_classes in class_counts.share_intervals(counts).items()}
    known["accuracy"] = bootstrap.share_interval(counts.hits.sum(), confused.sum())
    return numbers_of(scores_of(counts), scores_of(class_counts.replicates_of(confused)), known)


def _areas(whole: rankings.Ranking) -> tuple[Number, ...]:
    coarse = rankings.coarser(whole, GROUPS)
    drawn = [bootstrap.counts(counts, seed=seed) for seed, counts in enumerate(coarse[1:])]
    return tuple(
        Number(name, float(area(*whole[1:])), bootstrap.interval(area(*drawn) - area(*coarse[1:]) + area(*whole[1:])))
        for name, area in (("auroc", rankings.auroc), ("auprc", rankings.average_precision))
    )


def _table(names: list[str], confused: Numbers, shown: Sequence[curves.Curves]) -> Table:
    rows = []
    for name, matrix, one in zip(names, confused, shown):
        scores = scores_of(class_counts.counts_of(matrix))
        areas = [one.roc["auroc"], one.precision_recall["average_precision"]]
        rows.append([name, int(matrix[1].sum()), *(float(scores[key]) for key in scores), *areas])
    return Table("labels", "Labels", ("label", "positive", *scores, "auroc", "auprc"), rows)


def _tuned(at_default: Numbers, at_tuned: Numbers, tuned: float) -> Table:
    columns = {f"{DEFAULT:.4g}": _numbers(at_default), f"{tuned:.4g}": _numbers(at_tuned)}
    rows = [
        [numbers[0].name, *(part for number in numbers for part in (number.value, number.interval))]
        for numbers in zip(*columns.values())
    ]
    header = [part for name in columns for part in (f"at {name}", f"at {name} 95 %")]
    return Table(
        "thresholds", "Thresholds: 0.5, and the one with the best F1 on the tuning data", ("score", *header), rows
    )


def _panels(
    sums: _Sums, whole: rankings.Ranking, shown: Sequence[curves.Curves], tuned: float | None, answers: list[str]
) -> tuple[Panel, ...]:
    return (
        confusion.confusion_matrix(sums.confused, answers),
        curves.roc(shown),
        curves.precision_recall(shown),
        probabilities.calibration(sums.proper.calibration.total, SAID),
        curves.threshold(whole, tuned, "validation data"),
        sums.histogram.panel(SAID),
    )
