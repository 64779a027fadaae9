"""Sums that metrics are means of.

Everything is a pair of a weighted sum and the sum of its weights. The sums of micro-batches, batches, epochs and
ranks add. The mean is taken once, at the end.
"""

import functools
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from functrain.foundation.trees import node, static, tree_map
from functrain.metrics.measuring import Measured

SLOTS = 32
"""How many metrics an objective may return, the loss included."""


@node
class Totals:
    """Sums of metrics that can be added up and turned into means.

    Attributes:
        sums: float64 `[2, SLOTS]`: weighted sums, and sums of weights. Its size does not depend on the
            metrics, so a state that carries one has the same structure before the first step as after. Of a stack of
            N members (`functrain.stack`) it is `[N, 2, SLOTS]`.
        names: which metric a slot holds.
        measured: accumulators of the metrics that were asked for; None: none were.

    Example:
        >>> from functrain.objectives import Loss
        >>> one, two = (Loss(torch.tensor(total), 2.0).totals() for total in (6.0, 2.0))
        >>> (one + two).means(), (one + two).weight
        ({'loss': tensor(2., dtype=torch.float64)}, tensor(4., dtype=torch.float64))
    """

    sums: Tensor
    names: tuple[str, ...] = static(default=())
    measured: Measured | None = None

    def __add__(self, other: "Totals") -> "Totals":
        """Totals over both parts."""
        names = self.names or other.names
        if other.names and names != other.names:
            raise ValueError(f"totals of different metrics cannot be added: {names} and {other.names}")
        return Totals(self.sums + other.sums, names, _both(self.measured, other.measured))

    @property
    def weight(self) -> Tensor:
        """The loss's sum of weights, 0-d; of a stack `[N]`."""
        return self.sums[..., 1, 0]

    def of_members(self) -> "list[Totals]":
        """Those of each member of a stack.

        Example:
            >>> both = Totals(torch.ones(2, 2, SLOTS, dtype=torch.float64), ("loss",))
            >>> [each.means()["loss"].item() for each in both.of_members()]
            [1.0, 1.0]
        """
        rows = [tree_map(lambda leaf, number=number: leaf[number], self) for number in range(len(self.sums))]
        return list(rows)

    def counted(self) -> "Totals":
        """The same sums, with 0 in place of NaN and infinities where the weights sum to 0, as of a mean over nothing.

        A finite sum stays, as it may belong to the weights of other micro-batches (a second term of a `weighted_sum`).

        Example:
            >>> from functrain.objectives import Loss
            >>> nothing = Loss(torch.tensor(float("nan")), 0.0).totals()
            >>> (Loss(torch.tensor(6.0), 3.0).totals() + nothing.counted()).means()
            {'loss': tensor(2., dtype=torch.float64)}
        """
        sums = torch.where((self.sums[1] != 0) | self.sums[0].isfinite(), self.sums, 0.0)
        return Totals(sums, self.names, self.measured)

    def means(self) -> dict[str, Tensor]:
        """Name -> 0-d float64 mean, and the values of `measured`; NaN where nothing was counted. Of a stack `[N]`.

        A metric that was asked for takes the place of one of the objective's with its name.

        Example:
            >>> from functrain.objectives import Loss
            >>> Loss(torch.tensor(6.0), 3.0).totals().means()
            {'loss': tensor(2., dtype=torch.float64)}
        """
        if self.measured is not None and self.sums.ndim > 2:
            each = [totals.means() for totals in self.of_members()]
            return {name: torch.stack([means[name] for means in each]) for name in each[0]}
        means = dict(zip(self.names, (self.sums[..., 0, :] / self.sums[..., 1, :]).unbind(-1)))
        return means if self.measured is None else means | self.measured.values()


def sum_of(parts: Sequence[Totals]) -> Totals:
    """The parts added one after another; the bits of `parts[0] + parts[1] + ...`, and less work for the host.

    Example:
        >>> from functrain.objectives import Loss
        >>> sum_of([Loss(torch.tensor(total), 2.0).totals() for total in (6.0, 2.0)]).means()
        {'loss': tensor(2., dtype=torch.float64)}
    """
    first, *others = parts
    sums, measured = first.sums.clone(), first.measured
    for other in others:
        if other.names != first.names:
            return functools.reduce(operator.add, parts)
        sums += other.sums
        measured = _both(measured, other.measured)
    return Totals(sums, first.names, measured)


def _both(left: Measured | None, right: Measured | None) -> Measured | None:
    return left + right if left is not None and right is not None else left or right


def no_totals(device: torch.device | str = "cpu") -> Tensor:
    """The sums of no example: zeros, float64 `[2, SLOTS]`."""
    return torch.zeros(2, SLOTS, dtype=torch.float64, device=device)
