"""The report of predicted numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap
from functrain.evaluation.kept_rows import BatchRows, as_array
from functrain.evaluation.panels import values
from functrain.evaluation.quotients import ratio, share
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
SCORES = 8  # sums of an output
WITH_TABLE = 100  # outputs


class Regression(Collector):
    """Collects predictions and targets of one shape `[B, ...]`."""

    def of_batch(self, scores: Tensor, targets: Tensor) -> BatchRows:
        """Both of them, `[B, K]`."""
        if scores.shape != targets.shape:
            raise DataError(
                f"a report of values takes predictions and targets of one shape; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        rows = len(scores)
        return BatchRows(
            {"predicted": as_array(scores.reshape(rows, -1)), "targets": as_array(targets.reshape(rows, -1))}
        )

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:  # noqa: ARG002
        """The report over all batches."""
        [count] = self.rows.row_shape("predicted")
        names = names_of(count, labels, "outputs")
        spans = _Spans(count)
        for predicted, truth in self._parts():
            spans.add(predicted, truth)
        spans.refuse()
        whole = bootstrap.BlockSums(len(self.rows), SCORES)
        each = bootstrap.BlockSums(len(self.rows), SCORES * count) if 1 < count <= WITH_TABLE else None
        residuals = values.Residuals(spans.low, spans.high)
        scores = {name: self.rows.new_file(name, np.float64, [count]) for name in ("predictions", "targets")}
        for predicted, truth in self._parts():
            sums = sums_of(predicted - spans.means[0].mean(), truth - spans.means[1].mean(), predicted - truth)
            whole.add(sums.sum(2).T)
            if each is not None:
                own = sums_of(predicted - spans.means[0], truth - spans.means[1], predicted - truth)
                each.add(own.transpose(1, 2, 0).reshape(len(truth), -1))
            residuals.add(predicted - truth)
            scores["predictions"].append(predicted)
            scores["targets"].append(truth)
        arrays = {name: file.array() for name, file in scores.items()}
        return Report(
            task="regression",
            examples=len(self.rows),
            numbers=numbers_of(scores_of(whole.total), scores_of(whole.replicates())),
            tables=() if each is None else (_table(names, each),),
            panels=(values.predicted_over_true(arrays["predictions"], arrays["targets"]), residuals.panel()),
            scores=arrays,
            predictions=self._predictions(names) if count <= WITH_TABLE else None,
        )

    def _parts(self) -> Iterator[tuple[Numbers, Numbers]]:
        for predicted, truth in self.rows.parts("predicted", "targets"):
            yield predicted.astype(float), truth.astype(float)

    def _predictions(self, names: list[str]) -> Table:
        ends = [f" {name}" for name in names] if len(names) > 1 else [""]
        header = [f"{name}{end}" for end in ends for name in ("target", "predicted")]

        def rows() -> Iterator[list[list[Any]]]:
            number = 0
            for predicted, truth in self._parts():
                pairs = enumerate(zip(truth.tolist(), predicted.tolist()), number)
                yield [[i, *(part for pair in zip(t, p) for part in pair)] for i, (t, p) in pairs]
                number += len(truth)

        return Table("predictions", "Predictions", ("example", *header), RowsInParts(len(self.rows), rows))


class _Spans:
    """Where the values lie.

    Attributes:
        low, high: the least and the greatest error.
    """

    def __init__(self, count: int) -> None:
        self.low, self.high = np.inf, -np.inf
        self._nan = NotANumber()
        self._sums, self._examples = np.zeros((2, count)), 0

    def add(self, predicted: Numbers, truth: Numbers) -> None:
        """The next examples."""
        self._nan.look(predicted)
        errors = predicted - truth
        self.low = float(np.minimum(self.low, errors.min(initial=np.inf)))
        self.high = float(np.maximum(self.high, errors.max(initial=-np.inf)))
        self._sums += np.stack([predicted.sum(0), truth.sum(0)])
        self._examples += len(truth)

    def refuse(self) -> None:
        """Refuse values that are not finite.

        Raises:
            DataError: if there is one, or no value at all.
        """
        self._nan.refuse()
        if not (np.isfinite(self.low) and np.isfinite(self.high)):
            raise DataError(
                "predictions and targets must be finite numbers, at least one: there is a target that is NaN, an "
                "infinite number, or no value at all"
            )

    @property
    def means(self) -> Numbers:
        """Of predictions and of targets, `[2, K]`."""
        return self._sums / self._examples


def sums_of(p: Numbers, t: Numbers, error: Numbers) -> Numbers:
    """What the scores are made of, `[SCORES, n, K]`. Moments are about the means, so that they do not cancel."""
    return np.stack([np.ones_like(p), np.abs(error), error**2, p, t, p**2, t**2, p * t])


def scores_of(sums: Numbers) -> dict[str, Numbers]:
    """The numbers of the report `[...]`, from sums over examples and outputs `[..., SCORES]`."""
    n, absolute, squared, p, t, pp, tt, pt = np.moveaxis(sums, -1, 0)
    spread_p, spread_t = (np.maximum(square - one * share(one, n), 0) for square, one in ((pp, p), (tt, t)))
    return {
        "mae": ratio(absolute, n),
        "mse": ratio(squared, n),
        "rmse": np.sqrt(ratio(squared, n)),
        "r2": 1 - ratio(squared, spread_t),
        "pearson": ratio(pt - p * share(t, n), np.sqrt(spread_p * spread_t)),
    }


def _table(names: list[str], each: bootstrap.BlockSums) -> Table:
    total, drawn = each.total.reshape(-1, SCORES), each.replicates()
    rows, found = [], tuple[Number, ...]()
    for i, name in enumerate(names):
        found = numbers_of(scores_of(total[i]), scores_of(drawn[:, i * SCORES : (i + 1) * SCORES]))
        rows.append([name, *(part for number in found for part in (number.value, number.interval))])
    header = [part for number in found for part in (number.name, f"{number.name} 95 %")]
    return Table("outputs", "Outputs", ("output", *header), rows)
