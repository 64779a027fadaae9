"""Sources that live in memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from functrain.data.splits import split as index_split
from functrain.foundation.errors import DataError

SPLITS = ("train", "val", "test")
DIGITS_FRACTIONS = (0.6, 0.2, 0.2)
DIGITS_FILE = Path(__file__).with_name("digits.npz")


class Wrapper(Dataset[Any]):
    """A data set that makes each of its samples of the one with the same number in another data set.

    What the other data set tells (its labels, lengths, generators and its preprocessor) is true of this one too.
    """

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)


class Arrays(Dataset[Any]):
    """Tensors or NumPy arrays whose first dimension counts the examples; works with torch's DataLoader too.

    Args:
        *arrays: tensors or arrays `[N, ...]`, usually inputs and targets. NumPy arrays share their memory.
        transform: called as `transform(*sample)` for every example that is read, returns the sample to
            use. What it draws from torch's, NumPy's or Python's global generator is a function of the
            run's key, the epoch and the example.
        preprocessor: what made the arrays of raw inputs. Checkpoints hold it, and `functrain predict` applies it.

    Raises:
        DataError: if there is no example.
        ValueError: if no array is given or the first dimensions differ.

    Example:
        >>> data = Arrays(torch.arange(6.0).reshape(3, 2), np.array([0, 1, 0]))
        >>> len(data), data[1]
        (3, (tensor([2., 3.]), tensor(1)))
        >>> data.take([2, 0])[1]
        tensor([0, 0])
    """

    def __init__(
        self,
        *arrays: Tensor | np.ndarray,
        transform: Callable[..., Any] | None = None,
        preprocessor: Any = None,
    ):
        if not arrays:
            raise ValueError("Arrays needs at least one tensor or NumPy array, for example Arrays(inputs, targets)")
        self.tensors = tuple(_as_tensor(array) for array in arrays)
        self.transform = transform
        self.preprocessor = preprocessor
        lengths = [len(tensor) if tensor.ndim else None for tensor in self.tensors]
        if None in lengths or len(set(lengths)) > 1:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in self.tensors)
            raise ValueError(f"all arrays need the same first dimension, the number of examples; got shapes {shapes}")
        if lengths[0] == 0:
            raise DataError(
                "the data set is empty: the arrays hold 0 examples. Check the filter or path they come from"
            )

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> Any:
        sample = tuple(tensor[index] for tensor in self.tensors)
        return sample if self.transform is None else self.transform(*sample)

    def take(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, ...]:
        """Rows of the stored tensors, untransformed.

        Args:
            indices: int64 `[B]`, each in 0..N-1.

        Returns:
            One tensor `[B, ...]` for each array.
        """
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return tuple(tensor.index_select(0, rows) for tensor in self.tensors)


def digits(split: str = "train", *, seed: int = 0, transform: Callable[..., Any] | None = None) -> Arrays:
    """The 1,797 handwritten digits of scikit-learn, split 60/20/20 with equal shares of every class.

    Args:
        split: "train", "val" or "test".
        seed: seed of the split; the three parts of one seed are disjoint and complete.
        transform: see `Arrays`.

    Returns:
        Images, float32 `[N, 1, 8, 8]` in [0, 1], and classes, int64 `[N]` in 0..9.

    Raises:
        ValueError: for another split.

    Example:
        >>> images, classes = digits("val").tensors
        >>> images.shape, classes.dtype
        (torch.Size([360, 1, 8, 8]), torch.int64)
        >>> [len(digits(part)) for part in ("train", "val", "test")]
        [1078, 360, 359]

    References:
        E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998,
        doi:10.24432/C50P49, CC BY 4.0. The part that scikit-learn's `load_digits` has, kept beside this
        module (`digits.npz`, 8 x 8 pixels of 0 to 16): importing scikit-learn takes three seconds.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    with np.load(DIGITS_FILE) as stored:
        images = torch.from_numpy(stored["images"]).float().div(16).unsqueeze(1)
        classes = torch.from_numpy(stored["classes"]).long()
    rows = index_split(classes, DIGITS_FRACTIONS, seed=seed)[SPLITS.index(split)]
    return Arrays(images[rows], classes[rows], transform=transform)


def _as_tensor(array: Tensor | np.ndarray) -> Tensor:
    if isinstance(array, Tensor):
        return array
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "biufc":
            raise TypeError(
                f"Arrays takes numbers, got an array of {array.dtype}. Names of classes become numbers with "
                "names, labels = numpy.unique(array, return_inverse=True); columns of a table with "
                "array.astype('float32')"
            )
        # torch cannot mark memory read-only and warns about it: copy such an array
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    raise TypeError(f"Arrays takes tensors and NumPy arrays, got {type(array).__name__}; convert it with torch.tensor")
