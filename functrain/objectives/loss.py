"""What an objective returns: sums over a batch, never means."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import node
from functrain.metrics.measuring import Measured
from functrain.metrics.totals import SLOTS, Totals


@node
class Loss:
    """The outcome of an objective on one batch.

    Attributes:
        total: 0-d, the sum of the per-example (per-token, per-pixel) losses, each times its weight.
        weight: 0-d, the sum of the weights. What is minimised is total / weight.
        metrics: name -> 0-d sum over the same weights, or name -> (sum, weight) with weights of its own.
        measured: accumulators of the metrics that were asked for, which the step adds.

    Example:
        >>> Loss(torch.tensor(6.0), torch.tensor(3.0), {"accuracy": torch.tensor(1.5)}).totals().means()
        {'loss': tensor(2., dtype=torch.float64), 'accuracy': tensor(0.5000, dtype=torch.float64)}
    """

    total: Tensor
    weight: Tensor | float
    metrics: Mapping[str, Any] = field(default_factory=dict)
    measured: Measured | None = None

    def totals(self) -> Totals:
        """The sums of all metrics, the loss first, in one tensor; no gradient flows through it.

        Raises:
            ValueError: for too many metrics, one named "loss", or one that is not 0-d.

        Example:
            >>> Loss(torch.tensor(6.0), 3.0, {"accuracy": torch.tensor(1.5)}).totals().names
            ('loss', 'accuracy')
        """
        scalars = _of_one_dtype(self._scalars())
        rows = torch.stack(scalars).to(torch.float64).view(2, -1)
        return Totals(_in_slots(rows), ("loss", *self.metrics), self.measured)

    def _scalars(self) -> list[Tensor]:
        """The sums of the loss and the metrics, then the sums of their weights."""
        if len(self.metrics) >= SLOTS:
            raise ValueError(
                f"an objective may return at most {SLOTS - 1} metrics beside the loss, got "
                f"{len(self.metrics)}: {', '.join(self.metrics)}"
            )
        if "loss" in self.metrics:
            raise ValueError("'loss' is the name of Loss.total / Loss.weight; give the metric another name")
        pairs = [(self.total, self.weight)]
        for value in self.metrics.values():
            pairs.append(value if isinstance(value, tuple) else (value, self.weight))
        device = self.total.device
        return [_scalar(pair[row], device) for row in (0, 1) for pair in pairs]


def totals_of_each(losses: Sequence[Loss]) -> list[Totals]:
    """`loss.totals().counted()` of each, with fewer operations.

    Example:
        >>> totals_of_each([Loss(torch.tensor(6.0), 3.0), Loss(torch.tensor(float("nan")), 0.0)])[1].sums[:, 0]
        tensor([0., 0.], dtype=torch.float64)
    """
    names = {("loss", *loss.metrics) for loss in losses}
    if len(names) != 1:
        return [loss.totals().counted() for loss in losses]
    scalars = _of_one_dtype([scalar for loss in losses for scalar in loss._scalars()])
    rows = torch.stack(scalars).to(torch.float64).view(len(losses), 2, -1)
    sums = _in_slots(torch.where((rows[:, 1:] != 0) | rows[:, :1].isfinite(), rows, 0.0))
    [each] = names
    return [Totals(own, each, loss.measured) for own, loss in zip(sums.unbind(), losses, strict=True)]


def _of_one_dtype(scalars: list[Tensor]) -> list[Tensor]:
    """`stack` would promote, integers inexactly."""
    if any(scalar.dtype != scalars[0].dtype for scalar in scalars):
        return [scalar.to(torch.float64) for scalar in scalars]
    return scalars


def _in_slots(rows: Tensor) -> Tensor:
    return torch.nn.functional.pad(rows, (0, SLOTS - rows.shape[-1]))


def _scalar(value: Any, device: torch.device) -> Tensor:
    if isinstance(value, torch.SymInt):  # a size that depends on values, while a step is traced
        return torch.full((), value, dtype=torch.int64, device=device)  # type: ignore[call-overload]
    try:
        tensor = value if isinstance(value, Tensor) else torch.tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            "an objective's metrics are sums over the batch, 0-d tensors or numbers, or pairs (sum, weight); got "
            f"{value!r}"
        ) from None
    if tensor.ndim:
        raise ValueError(
            f"an objective returns sums, 0-d tensors; got one of shape {list(tensor.shape)}. Sum it over the "
            "examples (and do not divide: the step divides once by the weight)"
        )
    return tensor.detach() if tensor.requires_grad else tensor
