"""Transforms of images `[..., H, W]`: flips, crops and another size.

One draw serves all parts that `of` names. So an image and its mask are flipped and cut alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.data.transforms.parts import Parts, changed, parts_of, uniforms
from functrain.foundation.numbers import is_integer, is_number

Size = int | Sequence[int]


@dataclass(frozen=True)
class Flip:
    """Mirrors an image at random.

    Args:
        horizontal: probability of exchanging left and right.
        vertical: probability of exchanging top and bottom.
        of: path or paths of the images in a sample; None: the first of a tuple, or "inputs".

    Raises:
        ValueError: for a probability out of range.

    Example:
        >>> image = torch.arange(4.0).view(1, 2, 2)
        >>> Flip(horizontal=1.0)(image, 0)
        tensor([[[1., 0.],
                 [3., 2.]]])
        >>> flipped, mask = Flip(of=("0", "1"))((image, image[0]), 3)
        >>> torch.equal(flipped[0], mask)
        True
    """

    horizontal: float = 0.5
    vertical: float = 0.0
    of: Parts = None

    def __post_init__(self) -> None:
        for name in ("horizontal", "vertical"):
            value = getattr(self, name)
            if not is_number(value) or not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be a probability, 0 to 1; got {value!r}")

    def __call__(self, sample: Any, key: int) -> Any:
        """The sample, mirrored or not."""
        across, down = uniforms(key, 2)
        dims = [dim for dim, does in ((-1, across < self.horizontal), (-2, down < self.vertical)) if does]

        def mirrored(image: Tensor) -> Tensor:
            _require_image("Flip", image)
            return image.flip(dims) if dims else image

        return changed(sample, self.of, mirrored)


@dataclass(frozen=True)
class RandomCrop:
    """Cuts a window of a given size at a random place, after padding if asked for.

    Args:
        size: of the window: its edge, or (height, width).
        padding: pixels that are added at each side first.
        fill: their value; or path -> value, such as `{"0": 0.0, "1": -100}` for an image and the classes of its pixels.
        of: path or paths of the images in a sample; None: the first of a tuple, or "inputs".

    Raises:
        ValueError: for a size or padding out of range, a part without a value, or an image that is smaller than the
            window.

    Example:
        >>> RandomCrop(8, padding=2)(torch.rand(3, 8, 8), 0).shape
        torch.Size([3, 8, 8])
    """

    size: Size
    padding: int = 0
    fill: float | dict[str, float] = 0.0
    of: Parts = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))
        if not is_integer(self.padding, 0):
            raise ValueError(f"padding must be a whole number, 0 or more; got {self.padding!r}")

    def __call__(self, sample: Any, key: int) -> Any:
        """The sample with its window."""
        height, width = checked_size(self.size)
        down, across = uniforms(key, 2)

        def cut(image: Tensor, fill: float) -> Tensor:
            _require_image("RandomCrop", image)
            image = F.pad(image, (self.padding,) * 4, value=fill) if self.padding else image
            spare = image.shape[-2] - height, image.shape[-1] - width
            if min(spare) < 0:
                raise ValueError(
                    f"RandomCrop(size=({height}, {width}), padding={self.padding}) needs an image at least that large; "
                    f"with its padding this one is {list(image.shape)}. Take a smaller size, or more padding"
                )
            top, left = int(down * (spare[0] + 1)), int(across * (spare[1] + 1))
            return image[..., top : top + height, left : left + width]

        for path in parts_of(sample, self.of):
            sample = changed(sample, path, partial(cut, fill=self._fill(path)))
        return sample

    def _fill(self, path: str) -> float:
        if not isinstance(self.fill, dict):
            return self.fill
        if path not in self.fill:
            raise ValueError(
                f"fill has no value for the part {path!r}; it has one for {', '.join(map(repr, self.fill))}"
            )
        return self.fill[path]


@dataclass(frozen=True)
class CenterCrop:
    """Cuts the window of a given size in the middle: for validation, where `RandomCrop` augments the training.

    Args:
        size: of the window: its edge, or (height, width).
        of: path or paths of the images in a sample; None: the first of a tuple, or "inputs".

    Raises:
        ValueError: for a size out of range, or an image that is smaller.

    Example:
        >>> CenterCrop(2)(torch.arange(16.0).view(1, 4, 4))
        tensor([[[ 5.,  6.],
                 [ 9., 10.]]])
    """

    size: Size
    of: Parts = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))

    def __call__(self, sample: Any, key: int = 0) -> Any:  # noqa: ARG002 - nothing is random
        """The sample with its window."""
        height, width = checked_size(self.size)

        def cut(image: Tensor) -> Tensor:
            _require_image("CenterCrop", image)
            top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
            if top < 0 or left < 0:
                raise ValueError(f"CenterCrop(({height}, {width})) needs a larger image; got {list(image.shape)}")
            return image[..., top : top + height, left : left + width]

        return changed(sample, self.of, cut)


@dataclass(frozen=True)
class Resize:
    """Resamples an image to another size: by area and lines between pixels (bilinear, antialiased).

    Integer and boolean tensors, such as masks of classes, take the nearest pixel.

    Args:
        size: the new edge, or (height, width).
        of: path or paths of the images in a sample; None: the first of a tuple, or "inputs".

    Raises:
        ValueError: for a size out of range.

    Example:
        >>> Resize((4, 2))(torch.ones(3, 8, 8)).shape
        torch.Size([3, 4, 2])
    """

    size: Size
    of: Parts = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))

    def __call__(self, sample: Any, key: int = 0) -> Any:  # noqa: ARG002 - nothing is random
        """The sample with its image resampled."""
        return changed(sample, self.of, lambda image: resized(image, checked_size(self.size)))


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image `[..., H, W]` of another height and width."""
    _require_image("Resize", image)
    if tuple(image.shape[-2:]) == size:
        return image
    if not image.is_floating_point():
        rows, columns = (_nearest(old, new) for old, new in zip(image.shape[-2:], size))
        return image[..., rows[:, None], columns]
    flat = image.reshape(1, -1, *image.shape[-2:])
    found = F.interpolate(flat, size=size, mode="bilinear", align_corners=False, antialias=True)
    return found.reshape(*image.shape[:-2], *size)


def _nearest(old: int, new: int) -> Tensor:
    """The old place of each new pixel's centre."""
    return ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new)).long().clamp(max=old - 1)


def checked_size(size: Any) -> tuple[int, int]:
    """Height and width.

    Raises:
        ValueError: for anything else than a whole number, or two.
    """
    pair = (size, size) if is_integer(size, 1) else tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(pair) != 2 or not all(is_integer(each, 1) for each in pair):
        raise ValueError(f"size must be the edge in pixels or (height, width), whole numbers >= 1; got {size!r}")
    return pair[0], pair[1]


def _require_image(who: str, image: Tensor) -> None:
    if image.ndim < 2:
        raise ValueError(f"{who} takes images [..., H, W], got a tensor {list(image.shape)}")
