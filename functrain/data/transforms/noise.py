"""Noise on numbers."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.data.transforms.parts import Parts, changed
from functrain.foundation.keys import generator
from functrain.foundation.numbers import is_number


@dataclass(frozen=True)
class Noise:
    """Adds independent Gaussian noise to every number of a tensor.

    Args:
        std: its standard deviation, 0 or more.
        of: path or paths of the tensors in a sample; None: the first of a tuple, or "inputs".

    Raises:
        ValueError: for a `std` out of range.
        TypeError: for a tensor of integers.

    Example:
        >>> noisy = Noise(0.1)(torch.zeros(3), 7)
        >>> bool((noisy != 0).all()), torch.equal(noisy, Noise(0.1)(torch.zeros(3), 7))
        (True, True)
    """

    std: float = 0.1
    of: Parts = None

    def __post_init__(self) -> None:
        if not is_number(self.std) or not 0.0 <= self.std < float("inf"):
            raise ValueError(f"std must be a finite number, 0 or more; got {self.std!r}")

    def __call__(self, sample: Any, key: int) -> Any:
        """The sample with noise."""
        draws = generator(key)

        def noisy(value: Tensor) -> Tensor:
            require_floating("Noise", value)
            return value + self.std * torch.randn(value.shape, generator=draws, dtype=value.dtype)

        return changed(sample, self.of, noisy)


def require_floating(who: str, value: Tensor) -> None:
    """Refuse a tensor of integers.

    Raises:
        TypeError: for one.
    """
    if not value.is_floating_point():
        raise TypeError(
            f"{who} takes floating-point numbers, got {value.dtype}; convert them in the data set, for example images "
            "with image.float() / 255"
        )
