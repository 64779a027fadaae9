"""Metrics of predicted probabilities: calibration error, Brier score, perplexity, bits per byte."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from functrain.foundation.torch_internals import is_eager
from functrain.metrics.accumulating import Accumulator, Metric
from functrain.metrics.class_scores import quotient
from functrain.metrics.counts import is_right, sums_by_class, task_and_sums
from functrain.metrics.examples import Examples, Labels, Task
from functrain.metrics.labelled import OfLabels

_ELEMENTS = 1 << 22  # logits that are exponentiated in float64 at a time
_COMPARED = 1024  # bins, at most, that a graph finds by comparison


@dataclass(frozen=True)
class Bins(OfLabels):
    """`[3, bins]`: the weight, the confidence and the right predictions in each bin of confidence.

    Attributes:
        labels: how predictions are read.
        bins: how many there are, of one width; the first and the last include their ends.
    """

    labels: Labels
    bins: int

    def of_examples(self, found: Examples) -> Accumulator:
        """Of what was read of a batch."""
        probabilities = _of_scores("calibration_error", self.labels, found)
        if found.task == "multiclass":
            confidence, right = probabilities.amax(1), is_right(self.labels, found)
        else:
            confidence, right = probabilities.reshape(-1), found.targets.reshape(-1)
        weights = found.weight.reshape(-1)
        at = bin_of(confidence, self.bins)
        rows = (weights, weights * confidence, weights * right)
        return {
            found.task: torch.stack([sums_by_class(at, row, self.bins) for row in rows]),
            "refused": found.refused,
        }


@dataclass(frozen=True)
class SquaredErrors(OfLabels):
    """`[2]`: the weighted sum of squared errors of the probabilities, and the weight.

    Attributes:
        labels: how predictions are read.
    """

    labels: Labels

    def of_examples(self, found: Examples) -> Accumulator:
        """Of what was read of a batch."""
        probabilities = _of_scores("brier", self.labels, found)
        if found.task == "multiclass":
            truth = found.targets[:, None] == torch.arange(probabilities.shape[1], device=probabilities.device)
            errors = (probabilities - truth.double()).square().sum(1)
        else:
            errors = (probabilities - found.targets.double()).square()
        sums = torch.stack([(found.weight * errors).sum(), found.weight.sum()])
        return {found.task: sums, "refused": found.refused}


@dataclass(frozen=True)
class Surprise(OfLabels):
    """`[3]`: the weighted negative log-likelihood of the targets in nats, the weight, and the bytes.

    Attributes:
        labels: how predictions are read.
        token_bytes: the bytes of each token; None: one each.
    """

    labels: Labels
    token_bytes: tuple[int, ...] | None = None

    def of_examples(self, found: Examples) -> Accumulator:
        """Of what was read of a batch."""
        if found.task != "multiclass" or found.scores.ndim == 1:
            raise ValueError("it takes the scores of all classes or tokens, [B, C, ...], and integer targets [B, ...]")
        target = found.scores.gather(1, found.targets[:, None]).squeeze(1).double()
        nats = _log_sums(found.scores) - target if self.labels.from_logits else -target.log()
        bytes_each = torch.ones_like(found.weight)
        if self.token_bytes is not None:
            if len(self.token_bytes) != found.scores.shape[1]:
                raise ValueError(f"token_bytes has {len(self.token_bytes)} of {found.scores.shape[1]} tokens")
            bytes_each = torch.tensor(self.token_bytes, dtype=torch.float64, device=target.device)[found.targets]
        weighed = torch.where(found.weight != 0, nats, 0.0) * found.weight
        sums = torch.stack([weighed.sum(), found.weight.sum(), (bytes_each * found.weight).sum()])
        return {found.task: sums, "refused": found.refused}


def calibration_error(
    bins: int = 15,
    norm: Literal["l1", "l2", "max"] = "l1",
    *,
    task: Task | None = None,
    from_logits: bool = True,
) -> Metric:
    """The expected calibration error: how far confidence is from the share of right predictions, in bins of confidence.

    Confidence is the largest probability of several classes, and that of the positive class of a binary task.

    Args:
        bins: of one width. A confidence on an edge belongs to the bin above, 1 to the last bin.
        norm: the mean of the differences ("l1"), the root of their mean square ("l2"), or the largest ("max").
        task: "binary" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits; else probabilities.

    Example:
        >>> calibration_error(2, from_logits=False)(torch.tensor([0.25, 0.75, 1.0]), torch.tensor([0, 1, 1]))
        tensor(0.1667, dtype=torch.float64)

    References:
        Naeini, Cooper and Hauskrecht 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"; Guo et al.
        2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins must be a whole number, 1 or more; got {bins!r}")
    if norm not in ("l1", "l2", "max"):
        raise ValueError(f"norm must be 'l1', 'l2' or 'max'; got {norm!r}")
    return Metric("calibration_error", Bins(Labels(task, from_logits), bins), _Calibration(norm))


def brier(*, task: Task | None = None, from_logits: bool = True) -> Metric:
    """The mean squared error of the probabilities: of the positive class (0 to 1), or summed over classes (0 to 2).

    Arguments as of `calibration_error`.

    Example:
        >>> brier(from_logits=False)(torch.tensor([0.5, 1.0]), torch.tensor([0, 1]))
        tensor(0.1250, dtype=torch.float64)

    References:
        Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    return Metric("brier", SquaredErrors(Labels(task, from_logits)), _mean)


def perplexity(*, from_logits: bool = True) -> Metric:
    """exp(mean negative log-likelihood of the targets), in a text: of the tokens.

    Args:
        from_logits: the predictions are logits `[B, C, ...]`; else probabilities.

    Example:
        >>> perplexity()(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(4., dtype=torch.float64)
    """
    return Metric("perplexity", Surprise(Labels("multiclass", from_logits)), _perplexity)


def bits_per_byte(token_bytes: Sequence[int] | None = None, *, from_logits: bool = True) -> Metric:
    """The negative log-likelihood of a text in bits, over its bytes. It compares models of different tokens.

    Args:
        token_bytes: how many bytes each token of the vocabulary stands for; None: one each, as in a model of bytes.
        from_logits: as of `perplexity`.

    Example:
        >>> bits_per_byte([1, 1, 2, 4])(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(0.8000, dtype=torch.float64)
    """
    table = None if token_bytes is None else tuple(int(each) for each in token_bytes)
    return Metric("bits_per_byte", Surprise(Labels("multiclass", from_logits), table), _bits_per_byte)


def bin_of(confidence: Tensor, bins: int) -> Tensor:
    """The bin of each confidence; bins are of one width and closed below, the last one at both ends.

    Within a graph or a transform by comparison, which is fused: `bucketize` is a call that ends the kernel before it.

    Example:
        >>> bin_of(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), 2)
        tensor([0, 1, 1])
    """
    # not linspace, whose last bits are others within a graph
    edges = torch.arange(bins + 1, dtype=torch.float64, device=confidence.device) / bins
    if is_eager() or bins > _COMPARED:
        above = torch.bucketize(confidence, edges, right=True)
    else:
        above = (~(confidence[:, None] < edges)).sum(1)  # NaN is above all edges, as bucketize has it
    return (above - 1).clamp(0, bins - 1)


def calibration_of(sums: Tensor, norm: str = "l1") -> Tensor:
    """The calibration error `[...]` of the sums of bins, `[3, bins, ...]`: see `Bins`."""
    weight, confidence, right = sums
    gaps, shares = (quotient(right, weight) - quotient(confidence, weight)).abs(), weight / weight.sum(0)
    if norm == "max":
        return torch.where(weight.sum(0) > 0, gaps.amax(0), float("nan"))
    return (gaps * shares).sum(0) if norm == "l1" else (gaps.square() * shares).sum(0).sqrt()


@dataclass(frozen=True)
class _Calibration:
    norm: str

    def __call__(self, found: Accumulator) -> Tensor:
        return calibration_of(task_and_sums(found)[1], self.norm)


def _mean(found: Accumulator) -> Tensor:
    _, (total, weight) = task_and_sums(found)
    return total / weight


def _perplexity(found: Accumulator) -> Tensor:
    nats, weight, _ = found["multiclass"]
    return (nats / weight).exp()


def _bits_per_byte(found: Accumulator) -> Tensor:
    nats, _, size = found["multiclass"]
    return nats / math.log(2) / size


def _of_scores(name: str, labels: Labels, found: Any) -> Tensor:
    if not found.scores.is_floating_point():
        raise ValueError(f"{name} needs probabilities or logits; the predictions are class numbers")
    return labels.probabilities(found)


def _log_sums(scores: Tensor) -> Tensor:
    """The logarithm of the sum of exponentials of each row, float64; at once, a part of the rows at a time."""
    rows = max(1, _ELEMENTS // scores.shape[1])
    if not is_eager() or len(scores) <= rows:
        return scores.double().logsumexp(1)
    return torch.cat([part.double().logsumexp(1) for part in scores.split(rows)])
