"""What an objective returns, and the sums that metrics are made of.

Everything is a pair of a weighted sum and the sum of its weights. The sums of micro-batches, batches,
epochs and ranks add; the mean is taken once, at the end.
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import node, static

SLOTS = 32
"""How many metrics an objective may return, the loss included."""


@node
class Loss:
    """The outcome of an objective on one batch.

    Attributes:
        total: 0-d, the sum of the per-example (per-token, per-pixel) losses, each times its weight.
        weight: 0-d, the sum of the weights. What is minimised is total / weight.
        metrics: name -> 0-d sum over the same weights, or name -> (sum, weight) with weights of its own.

    Example:
        >>> Loss(torch.tensor(6.0), torch.tensor(3.0), {"accuracy": torch.tensor(1.5)}).totals().means()
        {'loss': tensor(2., dtype=torch.float64), 'accuracy': tensor(0.5000, dtype=torch.float64)}
    """

    total: Tensor
    weight: Tensor | float
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def totals(self) -> "Totals":
        """The sums of all metrics, the loss first, in one tensor; no gradient flows through it.

        Raises:
            ValueError: for too many metrics, one named "loss", or one that is not 0-d.

        Example:
            >>> Loss(torch.tensor(6.0), 3.0, {"accuracy": torch.tensor(1.5)}).totals().names
            ('loss', 'accuracy')
        """
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
        scalars = [_scalar(pair[row], device) for row in (0, 1) for pair in pairs]
        if any(scalar.dtype != scalars[0].dtype for scalar in scalars):
            scalars = [scalar.to(torch.float64) for scalar in scalars]  # stack would promote, integers inexactly
        rows = torch.stack(scalars).to(torch.float64).view(2, -1)
        sums = torch.nn.functional.pad(rows, (0, SLOTS - len(pairs)))
        return Totals(sums, ("loss", *self.metrics))


@node
class Totals:
    """Sums of metrics that can be added up and turned into means.

    Attributes:
        sums: float64 `[2, SLOTS]`: weighted sums, and sums of weights. Its size does not depend on the
            metrics, so a state that carries one has the same structure before the first step as after.
        names: which metric a slot holds.

    Example:
        >>> one, two = (Loss(torch.tensor(total), 2.0).totals() for total in (6.0, 2.0))
        >>> (one + two).means(), (one + two).weight
        ({'loss': tensor(2., dtype=torch.float64)}, tensor(4., dtype=torch.float64))
    """

    sums: Tensor
    names: tuple[str, ...] = static(default=())

    def __add__(self, other: "Totals") -> "Totals":
        """Totals over both parts."""
        names = self.names or other.names
        if other.names and names != other.names:
            raise ValueError(f"totals of different metrics cannot be added: {names} and {other.names}")
        return Totals(self.sums + other.sums, names)

    @property
    def weight(self) -> Tensor:
        """The loss's sum of weights, 0-d."""
        return self.sums[1, 0]

    def counted(self) -> "Totals":
        """The same sums, with 0 in place of NaN and infinities where the weights sum to 0, as of a mean over nothing.

        A finite sum stays, as it may belong to the weights of other micro-batches (a second term of a `weighted_sum`).

        Example:
            >>> nothing = Loss(torch.tensor(float("nan")), 0.0).totals()
            >>> (Loss(torch.tensor(6.0), 3.0).totals() + nothing.counted()).means()
            {'loss': tensor(2., dtype=torch.float64)}
        """
        return Totals(torch.where((self.sums[1] != 0) | self.sums[0].isfinite(), self.sums, 0.0), self.names)

    def means(self) -> dict[str, Tensor]:
        """Name -> 0-d float64 mean; NaN where nothing was counted.

        Example:
            >>> Loss(torch.tensor(6.0), 3.0).totals().means()
            {'loss': tensor(2., dtype=torch.float64)}
        """
        return dict(zip(self.names, (self.sums[0] / self.sums[1]).unbind()))


def no_totals(device: torch.device | str = "cpu") -> Tensor:
    """The sums of no example: zeros, float64 `[2, SLOTS]`."""
    return torch.zeros(2, SLOTS, dtype=torch.float64, device=device)


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
    return tensor.detach()
