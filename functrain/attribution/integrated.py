"""Integrated gradients by adaptive quadrature.

The path from the baseline to the input is cut into pieces, and pieces are cut again where the rule's error is large. A
network of ReLUs has a gradient that jumps along the path, where halving a piece gains one bit only. So a piece is cut
where the score has its kink, and many kinks are found by tangents.
"""

import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.attribution.gradients import Attribution
from functrain.attribution.path import Integral, Path, Point
from functrain.attribution.rows import ROWS, Score, Varied, check_rows, own_scores, sums
from functrain.attribution.tangents import MOST_NUMBERS, integrate_tangents

# The ends of a piece, at which the score alone is used, and the nodes of Kronrod's rule of degree 11 between them, of
# which every second belongs to Gauss' rule of degree 5 (Laurie 1997, "Calculation of Gauss-Kronrod quadrature rules").
_OUTER, _MIDDLE, _INNER = 0.96049126870802028342, 0.77459666924148337704, 0.43424374934680255800
_NODES = (-1.0, -_OUTER, -_MIDDLE, -_INNER, 0.0, _INNER, _MIDDLE, _OUTER, 1.0)
_A, _B, _C, _D = 0.10465622602646726519, 0.26848808986833344073, 0.40139741477596222291, 0.45091653865847414235
_KRONROD = (0.0, _A, _B, _C, _D, _C, _B, _A, 0.0)
_GAUSS = (0.0, 0.0, 5 / 9, 0.0, 8 / 9, 0.0, 5 / 9, 0.0, 0.0)
_ROWS_EACH = len(_NODES)

_JUMP = 0.3  # a gap between two nodes with more than this part of a piece's change of slope holds a kink
_AT_AN_END = 1e-9  # of a piece: a kink there is the one that the piece was cut at
_SHORTEST = 1e-13  # piece
_TRIED = 450  # evaluations, before it is asked whether the score is linear in pieces
TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-3}


class _Piece(NamedTuple):
    """A part of the path; 0 is the baseline and 1 the input. The error is that of what it was cut from."""

    begin: float
    end: float
    error: float


class _Found(NamedTuple):
    """What the rule gives for a piece.

    Attributes:
        integrals: float64 `[...]` for each varied tensor.
        error: of the integrals, summed over the inputs.
        noise: the error that rounding of the scores makes.
        cuts: where the piece is to be cut.
    """

    integrals: list[Tensor]
    error: float
    noise: float
    cuts: list[float]


def integrated_gradients(
    score: Score,
    inputs: Any,
    baseline: Any = None,
    *,
    tolerance: float | None = None,
    max_evaluations: int = 20_000,
    rows: int = ROWS,
) -> Attribution:
    """The integral of the gradient along the straight path from a baseline to the input, times their difference.

    The attributions of an example add up to its score less that of the baseline (completeness).

    Args:
        score: from inputs to a score for each row.
        inputs: a tree of tensors with a row for each example.
        baseline: a number; a tensor, or a tree like the inputs, whose floating tensors broadcast to those of the
            inputs. None: zeros.
        tolerance: the largest estimated error of an example, summed over its inputs, in units of the score; default
            1e-7 for float64 and 1e-3 for others. Below the rounding of the scores there is no gain.
        max_evaluations: gradients of an example. Where they do not suffice, `error` and `completeness` tell.
        rows: that the score gets at once, at most (9 or more).

    Raises:
        ValueError: for a baseline of another shape, and as `saliency`.

    Example:
        >>> found = integrated_gradients(lambda x: x[:, 0] * x[:, 1], torch.tensor([[2.0, 3.0]], dtype=torch.float64))
        >>> found.values, found.completeness < 1e-12
        (tensor([[3., 3.]], dtype=torch.float64), tensor([True]))

    References:
        Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks".
    """
    check_rows(rows)
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be a number greater than 0, got {tolerance!r}")
    if max_evaluations < _ROWS_EACH:
        raise ValueError(f"max_evaluations must be {_ROWS_EACH} or more, which one piece takes; got {max_evaluations}")
    varied = Varied(inputs)
    baselines = _baselines(varied, baseline)
    allowed = tolerance or TOLERANCES.get(varied.leaves[0].dtype, 1e-3)
    paths = [Path(score, varied, baselines, example) for example in range(varied.examples)]
    found = [_integral(path, allowed, max_evaluations, rows) for path in paths]
    totals = [torch.stack(column) for column in zip(*(each.integrals for each in found))]
    scores, baseline_scores = (own_scores(score, varied, values) for values in (varied.leaves, baselines))
    return Attribution(
        varied.tree([total.to(leaf.dtype) for total, leaf in zip(totals, varied.leaves)]),
        scores,
        baseline_scores,
        (sums(totals) - (scores.double() - baseline_scores.double())).abs(),
        torch.tensor([each.error for each in found], dtype=torch.float64),
        torch.tensor([each.evaluations for each in found]),
    )


def _baselines(varied: Varied, baseline: Any) -> list[Tensor]:
    if baseline is None or isinstance(baseline, (int, float)):
        return [torch.full_like(leaf, float(baseline or 0)) for leaf in varied.leaves]
    found = varied.like(baseline, "a baseline")
    for given, leaf in zip(found, varied.leaves):
        try:
            given.expand(leaf.shape)
        except RuntimeError:
            raise ValueError(
                f"a baseline must broadcast to the inputs {list(leaf.shape)}; got {list(given.shape)}"
            ) from None
    return [given.expand(leaf.shape) for given, leaf in zip(found, varied.leaves)]


def _integral(path: Path, tolerance: float, most: int, rows: int) -> Integral:
    """The integral along a path, by the method that suits the score."""
    found = _integrate(path, tolerance, min(_TRIED, most), max(1, rows // _ROWS_EACH))
    if not found.error > tolerance or most <= _TRIED:
        return found
    numbers = most * sum(difference.numel() for difference in path.differences)
    if numbers <= MOST_NUMBERS and path.is_linear_in_pieces():
        again = integrate_tangents(path, tolerance, most - found.evaluations, rows)
    else:
        again = _integrate(path, tolerance, most - found.evaluations, max(1, rows // _ROWS_EACH))
    return again._replace(evaluations=again.evaluations + found.evaluations)


def _integrate(path: Path, tolerance: float, most: int, at_once: int) -> Integral:
    """Integrate along a path.

    The error allowed to a piece is its share of the path, and a small share for however short a piece. Both together
    keep to the tolerance, for there are at most `most / 9` pieces.

    Args:
        path: the path.
        tolerance: the largest error.
        most: evaluations.
        at_once: pieces that are integrated at once.
    """
    totals = [torch.zeros_like(difference, dtype=torch.float64) for difference in path.differences]
    whole, used, least = 0.0, _ROWS_EACH, _ROWS_EACH / most
    pieces = [_Piece(0.0, 1.0, 0.0)]
    while pieces:
        cut: list[_Piece] = []
        for start in range(0, len(pieces), at_once):
            taken = pieces[start : start + at_once]
            for piece, found in zip(taken, _rule(path, taken)):
                allowed = max(tolerance / 2 * max(piece.end - piece.begin, least), found.noise)
                more = (len(found.cuts) + 1) * _ROWS_EACH
                is_last = used + more > most or piece.end - piece.begin < _SHORTEST
                if found.error <= allowed or is_last or not math.isfinite(found.error):
                    whole += found.error
                    totals = [total + integral for total, integral in zip(totals, found.integrals)]
                    continue
                used += more
                marks = itertools.pairwise([piece.begin, *found.cuts, piece.end])
                cut += [_Piece(*ends, found.error) for ends in marks]
        pieces = sorted(cut, key=lambda piece: -piece.error)  # so that what is allowed is used where it is needed
    return Integral(totals, whole, used)


def _rule(path: Path, pieces: list[_Piece]) -> list[_Found]:
    """Integrate pieces."""
    places = [
        (piece.begin + piece.end) / 2 + (piece.end - piece.begin) / 2 * node for piece in pieces for node in _NODES
    ]
    points = path.at(places)
    return [
        _of_piece(path, piece, points[number * _ROWS_EACH : (number + 1) * _ROWS_EACH])
        for number, piece in enumerate(pieces)
    ]


def _of_piece(path: Path, piece: _Piece, points: list[Point]) -> _Found:
    half = (piece.end - piece.begin) / 2
    kronrod, gauss = (_weighed(points, weights, half) for weights in (_KRONROD, _GAUSS))
    gained = sum(float(integral.sum()) for integral in kronrod)
    missed = abs(points[-1].score - points[0].score - gained)
    error = sum(float((one - other).abs().sum()) for one, other in zip(kronrod, gauss))
    noise = path.noise * max(abs(point.score) for point in points)
    return _Found(kronrod, error if math.isnan(error) else max(error, missed), noise, _cuts(points))


def _weighed(points: list[Point], weights: tuple[float, ...], half: float) -> list[Tensor]:
    """The sums of the gradients of each varied tensor."""
    flows = zip(*(point.flows for point in points))
    return [
        torch.stack([weight * each for weight, each in zip(weights, flow) if weight]).sum(0) * half for flow in flows
    ]


def _cuts(points: list[Point]) -> list[float]:
    """Where to cut a piece: at its kinks, else in its middle."""
    begin, end = points[0].place, points[-1].place
    gaps = list(itertools.pairwise(points))
    jumps = [abs(right.along - left.along) for left, right in gaps]
    found, margin = [], _AT_AN_END * (end - begin)
    for (left, right), jump in zip(gaps, jumps):
        if not jump > _JUMP * sum(jumps):
            continue
        rise = right.score - left.score - left.along * (right.place - left.place)
        # the tangents f(l) + s (x - l) and f(r) + t (x - r) meet at x = r - (f(r) - f(l) - s (r - l)) / (t - s)
        where = right.place - rise / (right.along - left.along)
        if not left.place <= where <= right.place:
            where = (left.place + right.place) / 2  # two kinks between the nodes
        if begin + margin < where < end - margin:
            found.append(where)
    return found or [(begin + end) / 2]
