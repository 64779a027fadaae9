"""Whether the parts of a model that see one modality each say the same."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from functrain.metrics.accumulating import Accumulator, Metric, Statistic
from functrain.metrics.other_outputs import example_weight, mean, output, sums

MEASURES = ("divergence", "agreement", "cosine")


@dataclass(frozen=True)
class Consistency(Statistic):
    """`[2]`: the weighted consistency of two outputs, and the weight.

    Attributes:
        first, second: names of the outputs.
        measure: one of `MEASURES`.
    """

    first: str
    second: str
    measure: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """Both."""
        return (self.first, self.second)

    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Accumulator:
        """Of a batch."""
        one, other = (output(predictions, name).detach().double() for name in self.outputs)
        if one.shape != other.shape or one.ndim != 2:
            raise ValueError(
                f"the outputs {self.first!r} and {self.second!r} must have one shape, [B, C]; got {list(one.shape)} "
                f"and {list(other.shape)}"
            )
        return sums(_MEASURES[self.measure](one, other), example_weight(weight, targets))


def modality_consistency(
    first: str = "aux_logits_spec",
    second: str = "aux_logits_tab",
    *,
    measure: Literal["divergence", "agreement", "cosine"] = "divergence",
) -> Metric:
    """How much two parts of a model agree, each of which sees another modality; the mean over examples.

    | measure | value |
    |---|---|
    | "divergence" | 1 - the Jensen-Shannon divergence of the predicted probabilities, in bits: 0 to 1 (equal) |
    | "agreement" | the share of examples for which both predict the same class |
    | "cosine" | the cosine of two embeddings, -1 to 1 |

    Args:
        first, second: names of the model's outputs: logits `[B, C]`, or embeddings for "cosine". One logit `[B, 1]` is
            that of yes or no.
        measure: of the table.

    Raises:
        ValueError: for another measure.

    Example:
        >>> logits = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
        >>> outputs = {"aux_logits_spec": logits, "aux_logits_tab": logits[:1].expand(2, 2)}
        >>> modality_consistency(measure="agreement")(outputs, torch.tensor([0, 1]))
        tensor(0.5000, dtype=torch.float64)

    References:
        Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}; got {measure!r}")
    return Metric("modality_consistency", Consistency(first, second, measure), mean)


def _divergence(one: Tensor, other: Tensor) -> Tensor:
    p, q = _probabilities(one), _probabilities(other)
    entropy = torch.special.entr
    divergence = (entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2).sum(1) / math.log(2)
    return 1 - divergence.clamp(0.0, 1.0)


def _agreement(one: Tensor, other: Tensor) -> Tensor:
    p, q = _probabilities(one), _probabilities(other)
    unknown = (p + q).isnan().any(1)
    return torch.where(unknown, float("nan"), (p.argmax(1) == q.argmax(1)).double())


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(one, other, dim=1)


def _probabilities(logits: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return logits.softmax(1)


_MEASURES = {"divergence": _divergence, "agreement": _agreement, "cosine": _cosine}
