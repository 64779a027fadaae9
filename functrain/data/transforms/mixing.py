"""Examples mixed with others of their batch: mixup and CutMix.

Targets become soft: `[B, C]`, the share of each class. `classification` and `segmentation` take them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from functrain.data.transforms.noise import require_floating
from functrain.data.transforms.parts import BatchTransform, changed, uniforms
from functrain.foundation.keys import fold_in, generator
from functrain.foundation.numbers import is_integer, is_number
from functrain.objectives.batch import Parts as BatchParts
from functrain.objectives.batch import replaced, unpack


@dataclass(frozen=True)
class MixUp(BatchTransform):
    """Replaces each example of a batch by a weighted mean of itself and another one.

    The weight is drawn once a batch, from Beta(alpha, alpha). Targets are mixed alike: of classes their shares, of
    numbers the numbers. Weights of examples are mixed too.

    Args:
        classes: how many there are; needed for integer targets.
        alpha: greater than 0; the greater, the more alike are the two weights.
        of: path or paths of the tensors in the inputs; None: the inputs themselves, which are a tensor then.

    Raises:
        ValueError: for an argument out of range, or integer targets without `classes`.

    Example:
        >>> batch = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
        >>> inputs, targets = MixUp(classes=2)(batch, 3)
        >>> targets.shape, bool((targets.sum(1) == 1).all()), torch.equal(targets[:, 1], inputs[:, 0])
        (torch.Size([2, 2]), True, True)

    References:
        Zhang, Cisse, Dauphin and Lopez-Paz 2018, "mixup: Beyond Empirical Risk Minimization", equation 1.
    """

    classes: int | None = None
    alpha: float = 0.2
    of: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check(self.classes, self.alpha)

    def __call__(self, batch: Any, key: int) -> Any:
        """The batch, mixed."""
        parts, share, others = _drawn(batch, self.alpha, key)

        def mixed(value: Tensor) -> Tensor:
            require_floating("MixUp", value)
            return _between(value, value[others], share)

        targets = _mixed_targets(parts.targets, self.classes, share, others)
        return _batch(batch, parts, _in_inputs(parts.inputs, self.of, mixed), targets, share, others)


@dataclass(frozen=True)
class CutMix(BatchTransform):
    """Replaces a rectangle of each image of a batch by that of another image.

    The rectangle is drawn once a batch: its area from Beta(alpha, alpha), its centre uniformly. Targets, one for an
    image, are mixed by the areas; classes of pixels, `[B, H, W]`, are replaced as the pixels are.

    Args:
        classes: how many there are; needed for integer targets.
        alpha: greater than 0; 1: all areas are equally likely.
        of: path or paths of the images `[B, ..., H, W]` in the inputs; None: the inputs themselves.

    Raises:
        ValueError: for an argument out of range, integer targets without `classes`, or inputs that are no images.

    Example:
        >>> batch = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
        >>> images, targets = CutMix(classes=3)(batch, 3)
        >>> images.shape, targets.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4, 3]))

    References:
        Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
        equations 1 and 2.
    """

    classes: int | None = None
    alpha: float = 1.0
    of: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check(self.classes, self.alpha)

    def __call__(self, batch: Any, key: int) -> Any:
        """The batch, mixed."""
        parts, share, others = _drawn(batch, self.alpha, key)
        centre = uniforms(fold_in(key, "centre"), 2)
        insides: list[Tensor] = []

        def pasted(images: Tensor) -> Tensor:
            if images.ndim < 3:
                raise ValueError(f"CutMix takes images [B, ..., H, W], got inputs {list(images.shape)}")
            insides.append(_rectangle(images.shape[-2], images.shape[-1], centre, share).to(images.device))
            return torch.where(insides[-1], images[others], images)

        inputs = _in_inputs(parts.inputs, self.of, pasted)
        inside = insides[0]
        share = 1.0 - inside.double().mean().item()  # a rectangle is cut off at the border
        if (
            parts.targets.ndim >= 3
            and parts.targets.shape[-2:] == inside.shape
            and not parts.targets.is_floating_point()
        ):
            targets = torch.where(inside, parts.targets[others], parts.targets)
        else:
            targets = _mixed_targets(parts.targets, self.classes, share, others)
        return _batch(batch, parts, inputs, targets, share, others)


def _check(classes: Any, alpha: Any) -> None:
    if classes is not None and not is_integer(classes, 2):
        raise ValueError(f"classes must be a whole number >= 2, or None for targets that are numbers; got {classes!r}")
    if not is_number(alpha) or not 0.0 < alpha < float("inf"):
        raise ValueError(f"alpha must be a finite number greater than 0; got {alpha!r}")


def _drawn(batch: Any, alpha: float, key: int) -> tuple[BatchParts, float, Tensor]:
    """The parts of a batch, the share that examples keep, and with which others they are mixed."""
    parts = unpack(batch)
    share = float(np.random.Generator(np.random.Philox(key=fold_in(key, "share"))).beta(alpha, alpha))
    if not isinstance(parts.targets, Tensor):
        raise TypeError(f"mixing needs targets that are a tensor, got {type(parts.targets).__name__}")
    others = torch.randperm(len(parts.targets), generator=generator(fold_in(key, "others")))
    return parts, share, others.to(parts.targets.device)


def _in_inputs(inputs: Any, of: str | tuple[str, ...] | None, change: Any) -> Any:
    return changed(inputs, "" if of is None and isinstance(inputs, Tensor) else of, change)


def _batch(batch: Any, parts: BatchParts, inputs: Any, targets: Tensor, share: float, others: Tensor) -> Any:
    """The batch with other inputs and targets, and its weights mixed."""
    weight = None if parts.weight is None else _between(parts.weight, parts.weight[others], share)
    if isinstance(batch, Mapping) and "inputs" in batch:
        found = replaced(replaced(batch, "inputs", inputs), "targets", targets)
        return found if weight is None else replaced(found, "weight", weight)
    if isinstance(batch, (tuple, list)):
        return type(batch)((inputs, targets) if weight is None else (inputs, targets, weight))
    raise TypeError("batches are mixed as (inputs, targets), (inputs, targets, weight), or under these names")


def _mixed_targets(targets: Tensor, classes: int | None, share: float, others: Tensor) -> Tensor:
    targets = _soft(targets, classes)
    return _between(targets, targets[others], share)


def _soft(targets: Tensor, classes: int | None) -> Tensor:
    """Classes `[B, ...]` as shares `[B, C, ...]`; numbers as they are. A label that does not count has no share."""
    if targets.is_floating_point():
        return targets
    if classes is None:
        raise ValueError(
            f"the targets are integers ({targets.dtype}): say how many classes there are, classes=..., or make them "
            "floating-point numbers if they are quantities"
        )
    largest = int(targets.max()) if targets.numel() else 0
    if largest >= classes:
        raise ValueError(f"classes={classes}, but the batch has the label {largest}")
    numbers = torch.arange(classes, device=targets.device).view(1, -1, *[1] * (targets.ndim - 1))
    return (targets.unsqueeze(1) == numbers).float()


def _between(value: Tensor, other: Tensor, share: float) -> Tensor:
    """`share` of one value and the rest of the other: equal values stay what they are."""
    return other + share * (value - other)


def _rectangle(height: int, width: int, centre: Sequence[float], share: float) -> Tensor:
    """bool `[H, W]`: a rectangle with the rest of the share as its area, where it lies inside the image."""
    inside = torch.zeros(height, width, dtype=torch.bool)
    (top, bottom), (left, right) = (
        _side(length, middle, share) for length, middle in zip((height, width), centre, strict=True)
    )
    inside[top:bottom, left:right] = True
    return inside


def _side(length: int, centre: float, share: float) -> tuple[int, int]:
    """Begin and end of the rectangle along one side of the image."""
    half, middle = length * (1.0 - share) ** 0.5 / 2, centre * length
    return max(0, round(middle - half)), min(length, round(middle + half))
