"""Weights by which examples are drawn: checked, balanced over classes, and an order that follows them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from functrain.data.datasets import Wrapper
from functrain.data.splits import label_codes
from functrain.foundation.errors import DataError


def balanced_weights(labels: Sequence[Any] | np.ndarray | Tensor, *, ignore_index: int = -100) -> Tensor:
    """Sampling weights that make every class as frequent as any other: `N / (K n_c)` for each example of class c.

    N is the number of examples that have a class, K that of classes, n_c that of the class; the mean weight of those
    examples is 1. An example without a class has weight 0 and is never drawn: it would teach the model nothing.

    Args:
        labels: the class of each example, `[N]`: numbers or names. NaN, None and `ignore_index` are no classes.
        ignore_index: the label of an example that does not count, as of `classification(ignore_index=...)`.

    Returns:
        float64 `[N]`, for `Loader(..., sampling_weights=...)`.

    Raises:
        ValueError: if the labels are not one to an example.
        DataError: if there is none.

    Example:
        >>> balanced_weights([0, 0, 0, 1])
        tensor([0.6667, 0.6667, 0.6667, 2.0000], dtype=torch.float64)
        >>> balanced_weights([0, -100, 1, 1])
        tensor([1.5000, 0.0000, 0.7500, 0.7500], dtype=torch.float64)

    References:
        King, Zeng 2001, "Logistic Regression in Rare Events Data", section 3; as scikit-learn's "balanced".
    """
    array = labels.numpy(force=True) if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim == 1 and not len(array):
        raise DataError("there are no labels to balance: the data set is empty")
    has_class = _has_class(array, ignore_index) if array.ndim == 1 else ...
    codes = label_codes(array[has_class])
    if not len(codes):
        raise DataError(
            f"there are no labels to balance: each of the {len(array)} is missing (NaN, None) or ignored "
            f"(ignore_index={ignore_index})"
        )
    counts = np.bincount(codes)
    weights = np.zeros(len(array))
    weights[has_class] = len(codes) / (len(counts) * counts[codes])
    return torch.from_numpy(weights)


def _has_class(labels: np.ndarray, ignore_index: int) -> np.ndarray:
    """bool `[N]`: whether an example's label is a class."""
    if labels.dtype.kind == "O":
        # NaN alone differs from itself; names are equal to no number.
        return np.array([label is not None and label == label and label != ignore_index for label in labels.flat])
    if labels.dtype.kind not in "fiu":
        return np.ones(len(labels), bool)
    return (labels == labels) & (labels != ignore_index)


def labels_of(dataset: Any) -> Any:
    """The class of each example, without reading one: `dataset.targets` (torchvision's name), or the second of two
    arrays in memory; of a `torch.utils.data.Subset` those of its part, of transformed samples those of the samples.

    Args:
        dataset: map-style.

    Returns:
        One label for each example, `[N]`, as the data set keeps them.

    Raises:
        TypeError: if the data set has neither.
        ValueError: if it has another number of them than of examples.

    Example:
        >>> from functrain.data.datasets import Arrays
        >>> labels_of(Arrays(torch.zeros(2, 5), torch.tensor([3, 1])))
        tensor([3, 1])
    """
    if isinstance(dataset, Subset):
        return np.asarray(labels_of(dataset.dataset))[np.asarray(dataset.indices)]
    if isinstance(dataset, Wrapper):
        return labels_of(dataset.dataset)
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) != len(dataset):
        raise ValueError(
            f"the data set ({type(dataset).__name__}) has {len(dataset)} examples and {len(targets)} `targets`; give "
            "it the class of each example, in their order"
        )
    if targets is not None:
        return targets
    arrays: Any = getattr(dataset, "tensors", ())
    if len(arrays) == 2:
        return arrays[1]
    raise TypeError(
        f"the data set ({type(dataset).__name__}) does not say its labels: give it an attribute `targets`, the "
        "class of each example"
    )


def checked_weights(weights: Any, length: int) -> Tensor:
    """Sampling weights as float64 `[length]`, a copy.

    Raises:
        TypeError: if they are no numbers.
        ValueError: for another shape, a weight that is negative or not finite, or nothing but zeros.

    Example:
        >>> checked_weights([1, 0, 3], 3)
        tensor([1., 0., 3.], dtype=torch.float64)
    """
    try:
        checked = torch.as_tensor(weights, dtype=torch.float64, device="cpu").detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        given = type(weights).__name__
        raise TypeError(f"sampling_weights must be numbers, one for each example; got {given}: {error}") from error
    if list(checked.shape) != [length]:
        raise ValueError(
            f"sampling_weights must be one number for each of the {length} examples; got the shape "
            f"{list(checked.shape)}. From labels: functrain.data.balanced_weights(labels)"
        )
    bad = ~(checked.isfinite() & (checked >= 0))
    if bad.any():
        where = int(bad.nonzero()[0])
        raise ValueError(f"sampling_weights must be finite and 0 or more; that of example {where} is {checked[where]}")
    if not checked.any():
        raise ValueError("sampling_weights are all 0, so no example could be drawn; make at least one greater")
    return checked


def weighted_order(weights: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Independent draws with replacement, each of example i with probability `weights[i] / weights.sum()`.

    By the inverse of the distribution function in float64: torch.multinomial ends at 2^24 examples.

    Args:
        weights: float64 `[N]`, >= 0, not all 0.
        count: how many draws.
        draws: what they are drawn from.

    Returns:
        int64 `[count]`; an example of weight 0 is never among them.

    Example:
        >>> weighted_order(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), 3, torch.Generator())
        tensor([1, 1, 1])
    """
    edges = (weights / weights.max()).cumsum(0)  # whatever their unit: a sum neither overflows nor is subnormal
    # The largest draw is 1 - 2^-53, and its product with the total rounds below the total: no index is out of range.
    points = torch.rand(count, generator=draws, dtype=torch.float64) * edges[-1]
    return torch.searchsorted(edges, points, right=True)
