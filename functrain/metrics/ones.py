"""Weights that are known to be 1 without a look at them. What they multiply, or leave out, stays as it is.

An operation on weights takes an eager step of a small network as long as one of its layers.
"""

import torch
from torch import Tensor

from functrain.foundation.torch_internals import is_eager, is_watched, writes_to

_MOST, _LARGEST = 64, 1 << 16  # how many are kept, and elements of each
_kept: dict[tuple[torch.Size, torch.device], tuple[Tensor, Tensor]] = {}  # with their sums


def ones(shape: torch.Size, device: torch.device) -> Tensor:
    """1 everywhere, float32: a tensor that is shared between calls if it is small. Do not write into it.

    Example:
        >>> weight = ones(torch.Size([3]), torch.device("cpu"))
        >>> are_ones(weight), sum_of_ones(weight), are_ones(weight.clone())
        (True, tensor(3.), False)
        >>> weight[0] = 2.0
        >>> are_ones(weight), ones(torch.Size([3]), torch.device("cpu"))
        (False, tensor([1., 1., 1.]))
    """
    kept = _kept.get((shape, device))
    if kept is not None and not writes_to(kept[0]):
        return kept[0]
    # it outlives the call: a tensor made under a caller's inference mode could not be trained with
    with torch.inference_mode(False):
        made = torch.ones(shape, device=device)
        if is_eager() and made.numel() <= _LARGEST:
            if len(_kept) >= _MOST:
                _kept.clear()
            _kept[shape, device] = made, made.sum()
    return made


def are_ones(weight: Tensor) -> bool:
    """Whether a weight is one that `ones` keeps, and nobody has written to it.

    False while a graph is made or recorded, which must hold for any weight.
    """
    return sum_of_ones(weight) is not None


def sum_of_ones(weight: Tensor) -> Tensor | None:
    """The sum, 0-d, of a weight of which `are_ones` is true; None for any other."""
    kept = _kept.get((weight.shape, weight.device))
    if kept is None or kept[0] is not weight or writes_to(weight) or writes_to(kept[1]) or is_watched():
        return None
    return kept[1]
