"""What a loss returns, and the sums that it goes into.

`F.cross_entropy(..., reduction="mean")` cannot be accumulated exactly: the mean of means is not the
mean. functrain's losses return the summands instead.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from functrain.metrics.ones import are_ones, sum_of_ones


class PerExample(NamedTuple):
    """Loss values and how much each counts; both of the same shape, `[B]` or `[B, ...]`.

    Example:
        >>> PerExample(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0])).sums()
        (tensor(5.), tensor(3.))
    """

    values: Tensor
    weights: Tensor

    def sums(self) -> tuple[Tensor, Tensor]:
        """The sum of values times weights and the sum of the weights, 0-d: `Loss.total` and `Loss.weight`."""
        values, weights = self
        if values.shape == weights.shape and (count := sum_of_ones(weights)) is not None:
            return wide(values).sum(), count
        return total(values, weights), weights.to(sum_dtype(weights)).sum()


LossFunction = Callable[..., PerExample]


def total(values: Tensor, weights: Tensor) -> Tensor:
    """Sum of values times weights, in float32 or wider; a value of weight 0 does not count, not even NaN.

    The gradient that reaches such a value is 0. What the value was computed from sees 0 times the slope there, which is
    NaN where the slope is: functrain's objectives put 0 in place of what does not count before they compute with it.

    Raises:
        ValueError: if the shapes differ; broadcasting [B, 1] with [B] would hide a bug.

    Example:
        >>> total(torch.tensor([1.0, float("nan")]), torch.tensor([2.0, 0.0]))
        tensor(2.)
    """
    if values.shape != weights.shape:
        raise ValueError(
            f"there must be one value for each weight: got values {list(values.shape)} and weights "
            f"{list(weights.shape)}. A metric returns one value per example, [B], not their mean"
        )
    return _products(values, weights).sum()


def per_example(loss: PerExample) -> PerExample:
    """One value for each example: the weighted mean over its positions (pixels, tokens).

    With it every example counts the same, however many of its positions do; without it every position does.

    Args:
        loss: values and weights `[B, ...]`.

    Returns:
        Values `[B]`; weights `[B]`, 1, or 0 for an example none of whose positions counts.

    Example:
        >>> per_example(PerExample(torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])))
        PerExample(values=tensor([2., 5.]), weights=tensor([1., 1.]))
    """
    if loss.values.ndim == 1:
        products, weights = _products(*loss), loss.weights
    else:
        products = _products(*loss).flatten(1).sum(1)
        weights = loss.weights.to(sum_dtype(loss.weights)).flatten(1).sum(1)
    counted = weights != 0
    values = products / torch.where(counted, weights, 1.0)
    return PerExample(values, counted.to(values.dtype))


def times_example_weight(loss: PerExample, weight: Tensor | None) -> PerExample:
    """The loss with each example's weight `[B]` on all of its positions; None leaves it as it is."""
    if weight is None:
        return loss
    weight = one_each(weight, len(loss.weights)).to(loss.weights.dtype)
    return PerExample(loss.values, loss.weights * weight.view(-1, *[1] * (loss.weights.ndim - 1)))


def one_each(weight: Tensor, examples: int) -> Tensor:
    """The weight, if it has one number for each example.

    Raises:
        ValueError: if it has another shape.
    """
    if weight.shape != (examples,):
        raise ValueError(
            f"a batch's weight has one number for each example, [{examples}] here; got {list(weight.shape)}"
        )
    return weight


def mean_of_rows(values: Tensor) -> Tensor:
    """Mean over all dimensions but the first: `[B, ...]` -> `[B]`."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def wide(tensor: Tensor) -> Tensor:
    """A tensor of half precision in float32; any other as it is."""
    return tensor if tensor.dtype is torch.float32 else tensor.to(sum_dtype(tensor))


def sum_dtype(tensor: Tensor) -> torch.dtype:
    """What to sum in: bfloat16 cannot even count to 257."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _products(values: Tensor, weights: Tensor) -> Tensor:
    if are_ones(weights):
        return wide(values)
    values = torch.where(weights != 0, values, 0.0)  # before the product: 0 times NaN is NaN, in its gradient too
    return values.to(sum_dtype(values)) * weights.to(sum_dtype(weights))
