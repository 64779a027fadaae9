"""Where two states differ."""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import leaves_with_paths


@dataclass(frozen=True)
class Difference:
    """A leaf that differs.

    Attributes:
        path: of the leaf.
        reason: in words.
        count: elements whose bits differ; None if the leaves cannot be compared element by element.
        largest: largest absolute difference of those elements (NaN if one of them is); None likewise.
        first: index of the first element that differs, in row-major order; None likewise.
        ulps: how many floating-point numbers of their dtype lie between the two values there, one of them
            counted; None for NaN and for integers.
    """

    path: str
    reason: str
    count: int | None = None
    largest: float | None = None
    first: tuple[int, ...] | None = None
    ulps: int | None = None


def diff_states(left: Any, right: Any) -> list[Difference]:
    """The leaves whose bits differ between two states (or any two trees), in the order of their paths.

    Bits are compared, not values: NaN equals itself, and -0.0 differs from 0.0.

    Example:
        >>> a = {"w": torch.tensor([1.0, 2.0]), "step": 3}
        >>> diff_states(a, a), diff_states(a, {"w": torch.tensor([1.0, 2.5]), "step": 3})
        ([], [Difference(path='w', reason='1 of 2 elements differ', count=1, largest=0.5, first=(1,), ulps=2097152)])
    """
    ours, theirs = dict(leaves_with_paths(left)), dict(leaves_with_paths(right))
    found = [Difference(path, "only in the first") for path in ours if path not in theirs]
    found += [Difference(path, "only in the second") for path in theirs if path not in ours]
    for path in ours.keys() & theirs.keys():
        difference = _difference(path, ours[path], theirs[path])
        if difference is not None:
            found.append(difference)
    return sorted(found, key=lambda difference: difference.path)


def _difference(path: str, ours: Any, theirs: Any) -> Difference | None:
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
        same = type(ours) is type(theirs) and ours == theirs
        return None if same else Difference(path, f"{ours!r} and {theirs!r}")
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return Difference(path, f"{ours.dtype}{list(ours.shape)} and {theirs.dtype}{list(theirs.shape)}")
    differs = (_bits(ours) != _bits(theirs.to(ours.device))).any(-1)
    count = int(differs.sum())
    if not count:
        return None
    # Of the elements that differ: equal NaNs or infinities elsewhere would make it NaN.
    pairs = (tensor.to(ours.device).flatten()[differs].double() for tensor in (ours, theirs))
    largest = torch.sub(*pairs).abs().max().item()
    place = int(differs.to(torch.uint8).argmax())
    first = tuple(int(index) for index in torch.unravel_index(torch.tensor(place), ours.shape))
    ulps = _ulps(ours.flatten()[place], theirs.flatten()[place])
    return Difference(path, f"{count} of {ours.numel()} elements differ", count, largest, first, ulps)


def _ulps(ours: Tensor, theirs: Tensor) -> int | None:
    """Distance of two 0-d tensors in units of the last place; +0.0 and -0.0 are one number."""
    if not ours.dtype.is_floating_point or ours.isnan() or theirs.isnan():
        return None
    return abs(_rank(ours) - _rank(theirs))


def _rank(value: Tensor) -> int:
    """A floating-point number's place among those of its dtype: their bits are a sign and an ordered magnitude."""
    bits = int.from_bytes(bytes(_bits(value.cpu()).flatten().tolist()), sys.byteorder)
    sign = 1 << (8 * value.element_size() - 1)
    return -(bits - sign) if bits & sign else bits


def _bits(tensor: Tensor) -> Tensor:
    """Bytes of each element, uint8 `[elements, bytes]`."""
    return tensor.contiguous().view(-1, 1).view(torch.uint8)
