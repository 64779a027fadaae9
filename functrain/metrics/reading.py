"""Metrics become numbers: whoever calls a function of this module waits for the device."""

from collections.abc import Iterable

import torch
from torch import Tensor


def numbers(scalars: Iterable[Tensor]) -> list[float]:
    """Python numbers of 0-d tensors, read in one transfer.

    Example:
        >>> numbers([torch.tensor(1), torch.tensor(2.5)])
        [1.0, 2.5]
    """
    doubles = [scalar.double() for scalar in scalars]
    return torch.stack(doubles).tolist() if doubles else []
