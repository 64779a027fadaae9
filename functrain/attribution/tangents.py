"""The integral of a gradient that is constant in pieces, as that of a network of ReLUs.

The score is linear between its kinks. The tangents at both ends of a piece meet in the kink, if there is one; the
gradients on both sides of that place tell whether both halves are linear. So a kink takes about two gradients.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from functrain.attribution.path import Integral, Path, Point

_INSIDE = 1e-9  # the ends of a piece may be kinks: their gradients are taken so far inside
_MARGIN = 1e-6  # of a piece: tangents that meet so near to an end tell nothing
_SHORTEST = 1e-13
MOST_NUMBERS = 200_000_000  # in the gradients that are held


class _Piece(NamedTuple):
    """A piece between two points."""

    left: Point
    right: Point


def integrate_tangents(path: Path, tolerance: float, most: int, at_once: int) -> Integral:
    """Integrate along a path on which the score is linear in pieces.

    Args:
        path: the path.
        tolerance: the largest error.
        most: evaluations.
        at_once: of them.
    """
    totals = [torch.zeros_like(difference, dtype=torch.float64) for difference in path.differences]
    whole, used = 0.0, 2
    pieces = [_Piece(_beside(path.at([_INSIDE])[0], 0.0), _beside(path.at([1 - _INSIDE])[0], 1.0))]
    while pieces:
        pieces = [piece for piece in pieces if not _is_linear(piece, path, totals)]
        pieces.sort(key=_error, reverse=True)
        cut: list[_Piece] = []
        for piece in pieces:
            error, length = _error(piece), piece.right.place - piece.left.place
            # not (error > allowed): what is not a number ends here, too
            if not error > tolerance * max(length, 1 / most) or used + 2 > most or length < _SHORTEST:
                whole += error
                middle = _meeting(piece)
                _add(totals, piece.left.flows, middle - piece.left.place)
                _add(totals, piece.right.flows, piece.right.place - middle)
            else:
                used += 2
                cut.append(piece)
        pieces = [half for start in range(0, len(cut), at_once) for half in _halves(path, cut[start : start + at_once])]
    return Integral(totals, whole, used)


def _halves(path: Path, pieces: list[_Piece]) -> list[_Piece]:
    """Both halves of pieces, which are cut where the tangents meet."""
    places = [_meeting(piece) for piece in pieces]
    aparts = [_apart(piece, path) for piece in pieces]
    before = path.at([place - apart for place, apart in zip(places, aparts)])
    after = path.at([place + apart for place, apart in zip(places, aparts)])
    found = []
    for piece, place, left, right in zip(pieces, places, before, after):
        found += [_Piece(piece.left, _beside(left, place)), _Piece(_beside(right, place), piece.right)]
    return found


def _beside(point: Point, place: float) -> Point:
    """The same piece of the path at another place, which may be its end."""
    return point._replace(place=place, score=point.score + point.along * (place - point.place))


def _apart(piece: _Piece, path: Path) -> float:
    """How far from a kink the gradient is taken: further than rounding moves the kink."""
    left, right = piece.left, piece.right
    change, size = abs(right.along - left.along), max(abs(left.score), abs(right.score))
    length = right.place - left.place
    return min(max(_INSIDE * length, path.noise * size / change if change else 0.0), _MARGIN * length / 2)


def _meeting(piece: _Piece) -> float:
    """Where the tangents at both ends meet; if that is outside, the middle."""
    left, right = piece.left, piece.right
    length = right.place - left.place
    rise = right.score - left.score - left.along * length
    change = right.along - left.along
    where = right.place - rise / change if change else left.place
    inside = left.place + _MARGIN * length < where < right.place - _MARGIN * length
    return where if inside else (left.place + right.place) / 2


def _error(piece: _Piece) -> float:
    """How much the integrals may be off if the gradients at the ends are all there are, and more where they are not."""
    left, right = piece.left, piece.right
    length = right.place - left.place
    missed = abs(right.score - left.score - (left.along + right.along) / 2 * length)
    return _change(left, right) * length / 2 + missed


def _is_linear(piece: _Piece, path: Path, totals: list[Tensor]) -> bool:
    """Whether the ends say that nothing is between them; then the piece is added to the totals."""
    left, right = piece.left, piece.right
    length = right.place - left.place
    missed = abs(right.score - left.score - left.along * length)
    size = sum(float(flow.abs().sum()) for flow in left.flows)
    if not (_change(left, right) <= 1e-10 * size and missed <= path.noise * max(abs(left.score), abs(right.score))):
        return False
    _add(totals, left.flows, length)
    return True


def _change(left: Point, right: Point) -> float:
    return sum(float((one - other).abs().sum()) for one, other in zip(left.flows, right.flows))


def _add(totals: list[Tensor], flows: list[Tensor], length: float) -> None:
    for total, flow in zip(totals, flows):
        total += flow * length
