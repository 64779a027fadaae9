"""The straight path from a baseline to an input: scores and gradients at places on it."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from functrain.attribution.rows import Score, Varied, column, slopes

ROUNDING = 64.0  # times eps: the error of a score of a deep network
_APART, _ALIKE = 1e-6, 1e-10  # gradients so far apart on a path are the same where the score is linear


class Integral(NamedTuple):
    """What an example's path gives: the integrals, their error, and how many gradients they took."""

    integrals: list[Tensor]
    error: float
    evaluations: int


class Point(NamedTuple):
    """A place on the path; 0 is the baseline and 1 the input.

    Attributes:
        place: the place.
        score: there.
        along: the slope of the score along the path.
        flows: gradient times difference, float64, of each varied tensor: their sum is `along`.
    """

    place: float
    score: float
    along: float
    flows: list[Tensor]


class Path:
    """The straight path from the baseline of an example to its inputs.

    Args:
        score, varied, baselines: of all examples.
        example: the example's number.

    Attributes:
        differences: of the varied tensors from the baselines, `[...]`.
        noise: the error that rounding makes of a score of 1.
    """

    def __init__(self, score: Score, varied: Varied, baselines: list[Tensor], example: int) -> None:
        self._score, self._varied, self._example = score, varied, example
        self._starts = [base[example] for base in baselines]
        self.differences = [leaf[example] - start for leaf, start in zip(varied.leaves, self._starts)]
        self.noise = ROUNDING * torch.finfo(varied.leaves[0].dtype).eps

    def at(self, places: list[float]) -> list[Point]:
        """Scores and gradients at places."""
        device = self.differences[0].device
        flat = torch.tensor(places, dtype=torch.float64, device=device)
        values = [
            start + column(flat.to(start.dtype), start.ndim) * difference
            for start, difference in zip(self._starts, self.differences)
        ]
        rows = torch.full((len(places),), self._example, device=device)
        found = slopes(self._score, self._varied, rows, values)
        flows = [g.double() * d.double() for g, d in zip(found.gradients, self.differences)]
        along = torch.stack([flow.flatten(1).sum(1) for flow in flows]).sum(0)
        parts = zip(*(flow.unbind() for flow in flows))
        found_at = zip(places, found.scores.tolist(), along.tolist(), parts)
        return [Point(place, score, slope, list(part)) for place, score, slope, part in found_at]

    def is_linear_in_pieces(self, places: tuple[float, ...] = (0.1234, 0.3456, 0.5678, 0.789, 0.9012)) -> bool:
        """Whether the gradient does not change from most places to others beside them, as in a network of ReLUs."""
        found = self.at([each + apart for each in places for apart in (0.0, _APART)])
        alike = 0
        for one, other in zip(found[::2], found[1::2]):
            size = sum(float(flow.abs().sum()) for flow in one.flows)
            change = sum(float((a - b).abs().sum()) for a, b in zip(one.flows, other.flows))
            alike += math.isfinite(change) and change <= _ALIKE * size
        return alike >= len(places) - 1
