"""Metrics of predicted values: MAE, MSE, RMSE, R2, Pearson's correlation.

Predictions and targets have one shape, `[B]` or `[B, K]` for K values an example (more dimensions are flattened to
that); `[B, 1]` fits `[B]`. With several values, each has a number of its own, of which the mean is taken.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from functrain.metrics.accumulating import Accumulator, Metric, Statistic, Values
from functrain.metrics.examples import positions


@dataclass(frozen=True)
class Errors(Statistic):
    """`[3, K]`: weighted sums of absolute and squared errors, and the weight."""

    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Accumulator:
        """Of a batch."""
        predictions, targets, weight, refused = columns(predictions, targets, weight)
        error = predictions - targets
        sums = torch.stack([(weight * error.abs()).sum(0), (weight * error.square()).sum(0), weight.sum(0)])
        return {"sums": sums, "refused": refused}


@dataclass(frozen=True)
class Moments(Statistic):
    """`[7, K]`: weight, number of examples, means of predictions and targets, sums of squares and products about them.

    References:
        Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """

    @property
    def adds(self) -> bool:
        """Means do not add."""
        return False

    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Accumulator:
        """Of a batch."""
        predictions, targets, weight, refused = columns(predictions, targets, weight)
        every = weight.sum(0)
        unit = torch.where(every > 0, every, 1.0)
        of_predictions, of_targets = (weight * predictions).sum(0) / unit, (weight * targets).sum(0) / unit
        x, y = predictions - of_predictions, targets - of_targets
        rows = [(weight * x * x).sum(0), (weight * y * y).sum(0), (weight * x * y).sum(0)]
        count = (weight != 0).sum(0).double()
        return {"moments": torch.stack([every, count, of_predictions, of_targets, *rows]), "refused": refused}

    def merge(self, left: Accumulator, right: Accumulator) -> Accumulator:
        """By the change of the means."""
        moments = self._merged(left["moments"], right["moments"])
        return {"moments": moments, "refused": left["refused"] + right["refused"]}

    @staticmethod
    def _merged(left: Tensor, right: Tensor) -> Tensor:
        weights = left[:2] + right[:2]
        share = right[0] / torch.where(weights[0] > 0, weights[0], 1.0)
        x, y = change = right[2:4] - left[2:4]
        products = left[4:] + right[4:] + torch.stack([x * x, y * y, x * y]) * (left[0] * share)
        return torch.cat([weights, left[2:4] + change * share, products])


@dataclass(frozen=True)
class Pairs(Statistic):
    """All predictions, targets and weights, float64 `[N, K]`."""

    @property
    def adds(self) -> bool:
        """Rows are put together."""
        return False

    @property
    def grows(self) -> bool:
        """By each example."""
        return True

    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Accumulator:
        """Of a batch."""
        predictions, targets, weight, refused = columns(predictions, targets, weight)
        return {"predictions": predictions, "targets": targets, "weight": weight, "refused": refused}

    def merge(self, left: Accumulator, right: Accumulator) -> Accumulator:
        """One after another."""
        refused = left["refused"] + right["refused"]
        return {key: torch.cat([left[key], right[key]]) for key in left if key != "refused"} | {"refused": refused}

    def empty(self, like: Accumulator) -> Accumulator:
        """No row."""
        rows = {key: leaf[:0] for key, leaf in like.items() if key != "refused"}
        return rows | {"refused": torch.zeros_like(like["refused"])}


def columns(predictions: Any, targets: Any, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predictions, targets and weight, float64 `[B, K]`, and how many are refused.

    Raises:
        ValueError: for shapes that differ.

    Example:
        >>> columns(torch.ones(2, 1), torch.zeros(2), None)[0].shape
        torch.Size([2, 1])
    """
    predictions, targets = predictions.detach(), targets.detach()
    if predictions.shape == (*targets.shape, 1):
        predictions = predictions.squeeze(-1)
    elif targets.shape == (*predictions.shape, 1):
        targets = targets.squeeze(-1)
    if predictions.shape != targets.shape or not targets.ndim:
        raise ValueError(
            f"a metric of values takes predictions and targets of one shape, [B, ...]; got {list(predictions.shape)} "
            f"and {list(targets.shape)}"
        )
    weight = positions(weight, targets)
    predictions, targets, weight = (part.reshape(len(part), -1).double() for part in (predictions, targets, weight))
    counted = weight != 0
    unknown, wrong = predictions.isnan(), targets.isnan()
    refused = torch.stack([(unknown & counted).sum(), (wrong & counted).sum()]).double()
    kept = counted & ~unknown & ~wrong
    predictions, targets, weight = (torch.where(kept, part, 0.0) for part in (predictions, targets, weight))
    return predictions, targets, weight, refused


def mae() -> Metric:
    """The mean of |prediction - target|.

    Example:
        >>> mae()(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 1.0]))
        tensor(1.5000, dtype=torch.float64)
    """
    return Metric("mae", Errors(), _mae)


def mse() -> Metric:
    """The mean of (prediction - target)^2.

    Example:
        >>> mse()(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 1.0]))
        tensor(4.5000, dtype=torch.float64)
    """
    return Metric("mse", Errors(), _mse)


def rmse() -> Metric:
    """The root of `mse`; with several values an example, the mean of their roots, as scikit-learn has it.

    Example:
        >>> rmse()(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
        tensor(1.4142, dtype=torch.float64)
    """
    return Metric("rmse", Errors(), _rmse)


def r2(multioutput: Literal["uniform_average", "variance_weighted", "raw_values"] = "uniform_average") -> Metric:
    """The coefficient of determination, 1 - sum of squared errors / sum of squares about the targets' mean.

    Constant targets give 1 if each is met, else 0, as scikit-learn has it; fewer than two examples give NaN.

    Args:
        multioutput: of several values an example: their mean ("uniform_average"), weighed by the targets' variance
            ("variance_weighted"), or one for each value ("raw_values"), with their mean.

    Example:
        >>> r2()(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 4.0]))
        tensor(0.7857, dtype=torch.float64)
    """
    known = ("uniform_average", "variance_weighted", "raw_values")
    if multioutput not in known:
        raise ValueError(f"multioutput must be one of {', '.join(known)}; got {multioutput!r}")
    return Metric("r2", Moments(), _R2(multioutput))


def pearson() -> Metric:
    """Pearson's correlation of predictions and targets; NaN where one of the two is constant.

    Example:
        >>> pearson()(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])).item() > 0.999999
        True
    """
    return Metric("pearson", Moments(), _pearson)


def spearman() -> Metric:
    """Spearman's correlation, Pearson's of the ranks; equal values have the mean of their ranks.

    It is measured in evaluations only, since it needs all values at once. An example of weight 2 counts as two.

    Example:
        >>> spearman()(torch.tensor([1.0, 2.0, 30.0]), torch.tensor([2.0, 4.0, 6.0])).item() > 0.999999
        True
    """
    return Metric("spearman", Pairs(), _spearman)


def _spearman(found: Accumulator) -> Tensor:
    weight = found["weight"]
    predicted, actual = (_ranks(found[key], weight) for key in ("predictions", "targets"))
    return _pearson(Moments().of(predicted, actual, weight))


def _ranks(values: Tensor, weight: Tensor) -> Tensor:
    """The weight below each value, and half of the weight that is equal to it, by column."""
    found = []
    for column, own in zip(values.T, weight.T):
        distinct, inverse = torch.unique(torch.where(own != 0, column, column.new_zeros(())), return_inverse=True)
        each = torch.zeros(len(distinct), dtype=torch.float64).index_add(0, inverse, own)
        found.append((each.cumsum(0) - each / 2)[inverse])
    return torch.stack(found, 1)


def _mae(found: Accumulator) -> Tensor:
    return (found["sums"][0] / found["sums"][2]).mean()


def _mse(found: Accumulator) -> Tensor:
    return (found["sums"][1] / found["sums"][2]).mean()


def _rmse(found: Accumulator) -> Tensor:
    return (found["sums"][1] / found["sums"][2]).sqrt().mean()


@dataclass(frozen=True)
class _R2:
    multioutput: str

    def __call__(self, found: Accumulator) -> Values:
        weight, count, of_predictions, of_targets, xx, yy, xy = found["moments"]
        residual = (xx + yy - 2 * xy + weight * (of_predictions - of_targets).square()).clamp(min=0)
        total = _varies(yy, weight, of_targets)
        residual = torch.where(residual <= _noise(weight, of_targets), 0.0, residual)
        constant = torch.where(residual == 0, 1.0, 0.0).double()
        values = torch.where(total > 0, 1 - residual / torch.where(total > 0, total, 1.0), constant)
        values = torch.where(count >= 2, values, float("nan"))
        if self.multioutput == "uniform_average":
            return values.mean()
        if self.multioutput == "raw_values":
            return {"": values.mean(), "value": values}
        return torch.where(total.sum() > 0, (values * total).sum() / total.sum(), values.mean())


def _pearson(found: Accumulator) -> Tensor:
    weight, _, of_predictions, of_targets, xx, yy, xy = found["moments"]
    xx, yy = _varies(xx, weight, of_predictions), _varies(yy, weight, of_targets)
    return (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0).mean()


def _varies(squares: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
    """A sum of squares about a mean, 0 where it is the mean's rounding: then the values are one."""
    return torch.where(squares <= _noise(weight, mean), 0.0, squares)


def _noise(weight: Tensor, mean: Tensor) -> Tensor:
    return weight * (4 * torch.finfo(torch.float64).eps * mean).square()
