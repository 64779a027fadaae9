"""The report of predicted numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation import bootstrap
from functrain.evaluation.panels import values
from functrain.evaluation.quotients import ratio, share
from functrain.evaluation.reports.report import Number, Report, Table, names_of, numbers_of, refuse_nan
from functrain.foundation.errors import DataError

Numbers = NDArray[np.float64]


class Regression:
    """Collects predictions and targets of one shape `[B, ...]`."""

    def __init__(self) -> None:
        self._predicted: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Take a batch."""
        if scores.shape != targets.shape:
            raise DataError(
                f"a report of values takes predictions and targets of one shape; got {list(scores.shape)} and "
                f"{list(targets.shape)}"
            )
        self._predicted.append(scores.reshape(len(scores), -1))
        self._targets.append(targets.reshape(len(targets), -1))

    def report(self, tuned: float | None = None, labels: Sequence[str] | None = None) -> Report:  # noqa: ARG002
        """The report over all batches."""
        predicted, truth = (torch.cat(parts).double().numpy() for parts in (self._predicted, self._targets))
        refuse_nan(torch.cat(self._predicted))
        count = truth.shape[1]
        names = names_of(count, labels, "outputs")
        tables = [_table(names, predicted, truth)] if 1 < count <= 100 else []
        ends = [f" {name}" for name in names] if count > 1 else [""]
        header = [f"{name}{end}" for end in ends for name in ("target", "predicted")]
        rows = [
            [i, *(part for pair in zip(t, p) for part in pair)]
            for i, (t, p) in enumerate(zip(truth.tolist(), predicted.tolist()))
        ]
        flat = predicted.reshape(-1), truth.reshape(-1)
        return Report(
            task="regression",
            examples=len(truth),
            numbers=_numbers(predicted, truth),
            tables=tuple(tables),
            panels=(values.predicted_over_true(*flat), values.residuals(*flat)),
            scores={"predictions": predicted, "targets": truth},
            predictions=Table("predictions", "Predictions", ("example", *header), rows) if count <= 100 else None,
        )


def _numbers(predicted: Numbers, truth: Numbers) -> tuple[Number, ...]:
    """Of all values of all examples; an example with all its values is what a replicate takes or leaves."""
    sums = _sums(predicted, truth)
    return numbers_of(_scores(sums.sum(0)), _scores(bootstrap.sums(sums)))


def _sums(predicted: Numbers, truth: Numbers) -> Numbers:
    """Of each example what the scores are made of. Moments about the means, so that they do not cancel."""
    p, t = predicted - predicted.mean(), truth - truth.mean()
    error = predicted - truth
    columns = (np.ones_like(p), np.abs(error), error**2, p, t, p**2, t**2, p * t)
    return np.stack([column.sum(1) for column in columns], 1)


def _scores(sums: Numbers) -> dict[str, Numbers]:
    n, absolute, squared, p, t, pp, tt, pt = np.moveaxis(sums, -1, 0)
    spread_p, spread_t = (np.maximum(square - one * share(one, n), 0) for square, one in ((pp, p), (tt, t)))
    return {
        "mae": ratio(absolute, n),
        "mse": ratio(squared, n),
        "rmse": np.sqrt(ratio(squared, n)),
        "r2": 1 - ratio(squared, spread_t),
        "pearson": ratio(pt - p * share(t, n), np.sqrt(spread_p * spread_t)),
    }


def _table(names: list[str], predicted: Numbers, truth: Numbers) -> Table:
    rows = []
    for i, name in enumerate(names):
        numbers = _numbers(predicted[:, i : i + 1], truth[:, i : i + 1])
        rows.append([name, *(part for number in numbers for part in (number.value, number.interval))])
    header = [part for number in numbers for part in (number.name, f"{number.name} 95 %")]
    return Table("outputs", "Outputs", ("output", *header), rows)
