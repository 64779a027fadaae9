"""Post-processing of masks: a threshold, then morphology, one operation after another."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Postprocessing(NamedTuple):
    """What is done with a mask.

    Attributes:
        names: of the operations, as given.
        operations: each from a mask `[H, W]` (or of more dimensions) to a mask.
    """

    names: tuple[str, ...]
    operations: tuple[Callable[[Mask], Mask], ...]

    def __call__(self, mask: Mask) -> Mask:
        """Do them in turn."""
        for operation in self.operations:
            mask = operation(mask)
        return mask


def postprocessing(names: Sequence[str]) -> Postprocessing:
    """Operations by name.

    | name | what it does |
    |---|---|
    | `open:R` | removes what is narrower than about 2 R pixels |
    | `close:R` | closes gaps that are narrower than about 2 R pixels |
    | `dilate:R`, `erode:R` | adds or removes a border of R pixels |
    | `fill-holes` | fills what is enclosed |
    | `min-size:N` | removes components of fewer than N pixels |
    | `largest` | keeps the largest component; of equal ones the first |

    A neighbourhood of R is R steps to a side, not diagonal ones; components hang together by sides.

    Raises:
        ValueError: for an operation that does not exist, or a number that it does not take.

    Example:
        >>> mask = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 1]], bool)
        >>> postprocessing(["largest"])(mask).astype(int).tolist()
        [[0, 0, 0], [0, 0, 1], [0, 0, 1]]
    """
    return Postprocessing(tuple(names), tuple(map(_operation, names)))


def _operation(text: str) -> Callable[[Mask], Mask]:
    name, _, number = text.partition(":")
    if name in _PLAIN and not number:
        return _PLAIN[name]
    if name in _NUMBERED and re.fullmatch(r"[1-9]\d*", number):
        size, function = int(number), _NUMBERED[name]
        return lambda mask: function(mask, size)
    known = [*(f"{known}:N" for known in _NUMBERED), *_PLAIN]
    raise ValueError(f"an operation on masks is one of {', '.join(known)}, N being 1 or more; got {text!r}")


def _morphology(function: str) -> Callable[[Mask, int], Mask]:
    def apply(mask: Mask, radius: int) -> Mask:
        from scipy import ndimage

        cross = ndimage.generate_binary_structure(mask.ndim, 1)
        ball = ndimage.iterate_structure(cross, radius)
        beyond = 2 * radius  # as opening and closing look so far; what lies beyond the border is as the border
        done = getattr(ndimage, function)(np.pad(mask, beyond, mode="edge"), ball)
        return done[tuple(slice(beyond, -beyond) for _ in range(mask.ndim))]

    return apply


def _fill_holes(mask: Mask) -> Mask:
    from scipy import ndimage

    return ndimage.binary_fill_holes(mask)


def _components(mask: Mask) -> tuple[NDArray[Any], NDArray[Any]]:
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    return labels, np.bincount(labels.ravel())


def _at_least(mask: Mask, size: int) -> Mask:
    labels, sizes = _components(mask)
    return mask & (sizes >= size)[labels]


def _largest(mask: Mask) -> Mask:
    labels, sizes = _components(mask)
    return labels == 1 + int(np.argmax(sizes[1:])) if len(sizes) > 1 else mask


_PLAIN: dict[str, Callable[[Mask], Mask]] = {"fill-holes": _fill_holes, "largest": _largest}
_NUMBERED: dict[str, Callable[[Mask, int], Mask]] = {
    "open": _morphology("binary_opening"),
    "close": _morphology("binary_closing"),
    "dilate": _morphology("binary_dilation"),
    "erode": _morphology("binary_erosion"),
    "min-size": _at_least,
}
