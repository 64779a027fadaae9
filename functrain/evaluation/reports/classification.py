"""The report of a choice of one of several classes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap, class_counts, rankings
from functrain.evaluation.areas import AREAS, drawn_areas
from functrain.evaluation.array_files import ColumnFile
from functrain.evaluation.kept_rows import BatchRows, as_array
from functrain.evaluation.panels import confusion, curves, probabilities
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
    refuse_strangers,
)
from functrain.foundation.errors import DataError

Numbers = NDArray[np.float64]
GROUPS = 200  # of scores, for intervals of areas
CURVES = 12  # of classes that a figure shows
WITH_INTERVAL = 100  # classes; the intervals of areas take some 50 ms for each
SURE = "probability of the predicted class"


class Classification(Collector):
    """Collects logits `[B, C]` and classes `[B]`."""

    def of_batch(self, scores: Tensor, targets: Tensor) -> BatchRows:
        """Both of them."""
        if scores.ndim != 2 or targets.shape != scores.shape[:1]:
            raise DataError(
                f"a report of classes takes logits [B, C] and classes [B]; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        return BatchRows({"logits": as_array(scores), "targets": as_array(targets)})

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:  # noqa: ARG002
        """The report over all batches."""
        [classes] = self.rows.row_shape("logits")
        examples = self._checked(classes)
        names = names_of(classes, labels, "classes", self._known)
        scores = {"probabilities": self.rows.new_file("probabilities", np.float32, [classes])}
        scores["targets"] = self.rows.new_file("truth", np.int64)
        columns = self.rows.new_columns("columns", np.float64, examples, classes)
        sums = _Sums(classes, examples)
        for part in self._parts():
            sums.add(part)
            columns.append(part.shares)
            scores["probabilities"].append(part.shares)
            scores["targets"].append(part.truth)
        truth = np.asarray(scores["targets"].array())
        counts = class_counts.counts_of(sums.confused)
        areas = _Areas(columns, truth, np.flatnonzero(counts.support).tolist(), names)
        replicates = class_counts.replicates_of(sums.confused)
        alone = {"accuracy": bootstrap.share_interval(counts.hits.sum(), examples)}
        numbers = numbers_of(class_counts.overall(counts), class_counts.overall(replicates), alone)
        return Report(
            task="classification",
            examples=examples,
            numbers=numbers + areas.numbers() + sums.proper.numbers(),
            tables=(_table(names, counts, class_counts.per_class(replicates), areas.of_classes["auroc"]),),
            panels=(
                confusion.confusion_matrix(sums.confused, names),
                curves.roc(areas.curves),
                curves.precision_recall(areas.curves),
                probabilities.calibration(sums.proper.calibration.total, SURE),
                sums.histogram.panel(SURE),
            ),
            scores={name: file.array() for name, file in scores.items()},
            predictions=Table(
                "predictions",
                "Predictions",
                ("example", "target", "predicted", *(f"p({name})" for name in names)),
                RowsInParts(examples, lambda: self._predictions(names)),
            ),
        )

    def _checked(self, classes: int) -> int:
        """How many examples count."""
        nan, examples = NotANumber(), 0
        for logits, targets in self.rows.parts("logits", "targets"):
            counted = targets != self._ignore
            nan.look(logits[counted])
            refuse_strangers(targets[counted], classes, self._ignore)
            examples += int(counted.sum())
        nan.refuse()
        if not examples:
            raise DataError("there is no target to report on: every target is ignore_index")
        return examples

    def _parts(self) -> Iterator["_Part"]:
        for logits, targets in self.rows.parts("logits", "targets"):
            counted = targets != self._ignore
            wide, truth = torch.from_numpy(logits[counted]).double(), targets[counted].astype(np.int64)
            if len(truth):
                own = -wide.log_softmax(1).numpy()[np.arange(len(truth)), truth]
                yield _Part(wide.softmax(1).numpy(), own, truth)

    def _predictions(self, names: list[str]) -> Iterator[list[list[Any]]]:
        number = 0
        for part in self._parts():
            said = part.shares.argmax(1)
            rows = zip(part.truth, said, part.shares.tolist())
            yield [[number + i, names[t], names[p], *row] for i, (t, p, row) in enumerate(rows)]
            number += len(said)


class _Part(NamedTuple):
    """Some examples.

    Attributes:
        shares: probabilities `[n, C]`.
        losses: minus the logarithm of the target's, `[n]`.
        truth: `[n]`.
    """

    shares: Numbers
    losses: Numbers
    truth: NDArray[np.int64]


class _Sums:
    """What is added up over the examples."""

    def __init__(self, classes: int, examples: int) -> None:
        self.confused = np.zeros((classes, classes))
        self.proper = ProperScores(examples)
        self.histogram = probabilities.Histogram("right", "wrong")

    def add(self, part: _Part) -> None:
        """Some more."""
        classes, said = part.shares.shape[1], part.shares.argmax(1)
        cells = np.bincount(part.truth * classes + said, minlength=classes**2)
        self.confused += cells.reshape(classes, classes)
        sure, right = part.shares.max(1), said == part.truth
        own = part.shares[np.arange(len(said)), part.truth]
        brier = (part.shares**2).sum(1) - 2 * own + 1
        self.proper.add(part.losses, brier, sure, right.astype(float))
        self.histogram.add("right", sure[right])
        self.histogram.add("wrong", sure[~right])


class _Areas:
    """AUROC and AUPRC of each class against the rest; the scores of one class are in memory at a time.

    Args:
        columns: probabilities of each class.
        truth: `[N]`.
        present: the classes that occur.
        names: of all classes.

    Attributes:
        of_classes: name -> area of each class that occurs.
        curves: of the first classes that occur.
    """

    def __init__(self, columns: ColumnFile, truth: NDArray[np.int64], present: list[int], names: list[str]) -> None:
        self.of_classes: dict[str, dict[int, float]] = {name: {} for name in AREAS}
        self.curves: list[curves.Curves] = []
        self._drawn: dict[str, list[Numbers]] = {name: [] for name in AREAS}
        block, draws = bootstrap.shared_draws(len(truth))
        for label in present:
            scores, positive = columns.column(label), truth == label
            ranked = rankings.ranking(scores, positive)
            if len(self.curves) < CURVES:
                self.curves.append(curves.curves_of(names[label], ranked))
            for name, area in AREAS.items():
                self.of_classes[name][label] = float(area(*ranked[1:]))
            if len(present) <= WITH_INTERVAL:
                place = block * GROUPS + rankings.groups_of(scores, ranked, GROUPS)
                for name, found in drawn_areas(ranked, place, positive, draws, GROUPS).items():
                    self._drawn[name].append(found)

    def numbers(self) -> tuple[Number, ...]:
        """Plain means over the classes that occur."""
        result = []
        for name, drawn in self._drawn.items():
            defined = [value for value in self.of_classes[name].values() if not np.isnan(value)]
            value = float(np.mean(defined)) if defined else float("nan")
            result.append(Number(name, value, bootstrap.interval(np.mean(drawn, 0)) if drawn else None))
        return tuple(result)


def _table(
    names: list[str], counts: class_counts.ClassCounts, spread: dict[str, Numbers], areas: dict[int, float]
) -> Table:
    scores, known = class_counts.per_class(counts), class_counts.share_intervals(counts)
    header: tuple[str, ...] = ("class", "support")
    for name in scores:
        header += (name, f"{name} 95 %")
    rows = []
    for label, name in enumerate(names):
        row: list[Any] = [name, int(counts.support[label])]
        for key in scores:
            found = known[key][label] if key in known else bootstrap.interval(spread[key][:, label])
            row += [float(scores[key][label]), found]
        rows.append([*row, areas.get(label)])
    return Table("classes", "Classes", (*header, "auroc"), rows)
