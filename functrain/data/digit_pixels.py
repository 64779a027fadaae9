"""Tasks that have a target for each pixel, made from the handwritten digits: reconstruction and segmentation."""

import torch
from torch import Tensor

from functrain.data.datasets import Arrays, digits
from functrain.data.splits import split as index_split
from functrain.foundation.keys import fold_in, root_key, torch_seed

INK = 0.25  # of the blackest: a pixel that is darker belongs to the digit


def masked_digits(split: str = "train", *, fraction: float = 0.5, patch: int = 2, seed: int = 0) -> Arrays:
    """The digits with hidden patches, to be reconstructed: masked pre-training.

    A training image has other patches hidden each time that it is read. Those of an image of "val" and "test" stay,
    so that losses of different epochs can be compared.

    Args:
        split: "train", "val" or "test".
        fraction: share of the patches that are hidden (set to 0).
        patch: edge of a patch in pixels, a divisor of 8.
        seed: seed of the split, and of the hidden patches of "val" and "test".

    Returns:
        Images with hidden patches, float32 `[N, 1, 8, 8]`, and the whole images.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> hidden, whole = masked_digits("val").tensors
        >>> bool((hidden <= whole).all()), bool((hidden == whole).all())
        (True, False)
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction!r}")
    if patch not in (1, 2, 4):
        raise ValueError(f"patch must be 1, 2 or 4, got {patch!r}")
    images = digits(split, seed=seed).tensors[0]
    if split == "train":

        def hide(image: Tensor) -> tuple[Tensor, Tensor]:
            return image * _visible(1, fraction, patch)[0], image

        return Arrays(images, transform=hide)
    with torch_seed(fold_in(root_key(seed), f"hidden patches of {split}")):
        return Arrays(images * _visible(len(images), fraction, patch), images)


def _visible(count: int, fraction: float, patch: int) -> Tensor:
    """Masks `[count, 1, 8, 8]` of 1 and 0, with equally many hidden patches each."""
    side = 8 // patch
    ranks = torch.rand(count, side * side).argsort(dim=1).argsort(dim=1)
    visible = (ranks >= round(fraction * side * side)).float().view(count, 1, side, side)
    return visible.repeat_interleave(patch, 2).repeat_interleave(patch, 3)


def segmented_digits(split: str = "train", *, fraction: float = 1.0, seed: int = 0) -> Arrays:
    """The digits with a class for each pixel: 0 where there is no ink, else the digit plus one.

    Args:
        split: "train", "val" or "test".
        fraction: share of the training images that is used, with equal shares of every digit: few labels.
        seed: seed of the splits.

    Returns:
        Images, float32 `[N, 1, 8, 8]`, and classes, int64 `[N, 8, 8]` in 0..10.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> images, classes = segmented_digits("train", fraction=0.1).tensors
        >>> images.shape, classes.shape, int(classes.max())
        (torch.Size([108, 1, 8, 8]), torch.Size([108, 8, 8]), 10)
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction!r}")
    images, labels = digits(split, seed=seed).tensors
    if split == "train" and fraction < 1.0:
        rows = index_split(labels, (fraction, 1.0 - fraction), seed=seed)[0]
        images, labels = images[rows], labels[rows]
    ink = images[:, 0] > INK
    return Arrays(images, torch.where(ink, labels[:, None, None] + 1, torch.zeros((), dtype=torch.int64)))
