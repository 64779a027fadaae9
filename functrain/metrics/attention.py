"""How widely attention is spread."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import leaves
from functrain.metrics.accumulating import Accumulator, Metric, Statistic
from functrain.metrics.other_outputs import example_weight, mean, output, sums


def entropies(weights: Tensor, *, normalize: bool = True) -> tuple[Tensor, Tensor]:
    """The entropy of each row of attention weights, float64, and whether the row counts: a fully masked one does not.

    Args:
        weights: `[..., K]`, rows that sum to 1.
        normalize: in parts of log K, the largest there is; else in nats.

    Example:
        >>> entropies(torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
        (tensor([0.5000, 0.0000], dtype=torch.float64), tensor([ True, False]))
    """
    weights = weights.detach().double()
    known = weights.sum(-1) != 0  # what is not a number counts, and is refused
    found = torch.special.entr(weights).sum(-1)
    if normalize and weights.shape[-1] > 1:
        found = found / math.log(weights.shape[-1])
    return torch.where(known, found, 0.0), known


@dataclass(frozen=True)
class AttentionEntropy(Statistic):
    """`[2]`: the weighted entropy of the attention, the mean over heads and queries, and the weight.

    Attributes:
        output: of the model, with the attention weights.
        normalize: as of `entropies`.
    """

    output: str
    normalize: bool

    @property
    def outputs(self) -> tuple[str, ...]:
        """The attention weights."""
        return (self.output,)

    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Accumulator:
        """Of a batch."""
        found, counted = [], []
        for weights in leaves(output(predictions, self.output)):
            if not isinstance(weights, Tensor) or weights.ndim < 2 or len(weights) != len(targets):
                raise ValueError(
                    f"the output {self.output!r} must have attention weights [B, ..., K], or several in a tuple, list "
                    "or mapping"
                )
            rows, known = entropies(weights, normalize=self.normalize)
            found.append(rows.reshape(len(weights), -1).sum(1))
            counted.append(known.reshape(len(weights), -1).sum(1))
        count = torch.stack(counted).sum(0)
        values = torch.stack(found).sum(0) / count.clamp(min=1)
        return sums(values, torch.where(count > 0, example_weight(weight, targets), 0.0))


def attention_entropy(output: str = "attention_weights", *, normalize: bool = True) -> Metric:
    """The mean entropy of attention: 0 where one key has all weight, 1 where all keys have the same.

    Each example counts the mean over its heads and queries. A query whose keys are all masked does not count. Weights
    of masked keys are 0, and K counts them.

    Args:
        output: name of the model's output with the attention weights: `[B, ..., K]`, whose last dimension sums to 1, or
            several in a tuple, list or mapping.
        normalize: divide by log K; else the entropy is in nats.

    Example:
        >>> attention_entropy()({"attention_weights": torch.full((3, 2, 5, 4), 0.25)}, torch.zeros(3))
        tensor(1., dtype=torch.float64)
    """
    return Metric("attention_entropy", AttentionEntropy(output, normalize), mean)
