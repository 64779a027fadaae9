"""What metrics of a model's other outputs have in common: those that the objective does not compare with targets."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from functrain.metrics.accumulating import Accumulator
from functrain.metrics.examples import positions


def output(predictions: Any, name: str) -> Any:
    """One of a model's outputs.

    Raises:
        ValueError: there is none of this name.
    """
    if isinstance(predictions, Mapping) and predictions.get(name) is not None:
        return predictions[name]
    given = [key for key, value in predictions.items() if value is not None] if isinstance(predictions, Mapping) else []
    has = ", ".join(map(repr, given)) or f"a {type(predictions).__name__}"
    raise ValueError(f"it takes the model's output {name!r}; the model returned {has}")


def example_weight(weight: Tensor | None, targets: Tensor) -> Tensor:
    """One weight for each example, float64 `[B]`: the largest of its positions.

    Example:
        >>> example_weight(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.zeros(2, 2))
        tensor([2., 0.], dtype=torch.float64)
    """
    found = positions(weight, targets)
    return found.flatten(1).amax(1) if found.ndim > 1 else found


def sums(values: Tensor, weight: Tensor) -> Accumulator:
    """The accumulator of a mean over examples: the weighted sum of values `[B]`, and the weight.

    A value that is not a number is refused where it counts.
    """
    refused = (values.isnan() & (weight != 0)).sum().double()
    kept = (weight != 0) & ~values.isnan()
    values, weight = torch.where(kept, values.double(), 0.0), torch.where(kept, weight, 0.0)
    return {
        "sums": torch.stack([(values * weight).sum(), weight.sum()]),
        "refused": torch.stack([refused, torch.zeros_like(refused)]),
    }


def mean(found: Accumulator) -> Tensor:
    """The mean of `sums`."""
    return found["sums"][0] / found["sums"][1]
