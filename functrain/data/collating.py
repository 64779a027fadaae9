"""What torch's `default_collate` cannot put together, in words."""

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate

from functrain.foundation.errors import DataError
from functrain.foundation.trees import leaves_with_paths


def collated(samples: Any) -> Any:
    """The batch of `default_collate`.

    Raises:
        DataError: the samples have unequal shapes.

    Example:
        >>> import torch
        >>> collated([torch.zeros(3), torch.zeros(2)])
        Traceback (most recent call last):
        ...
        functrain.foundation.errors.DataError: the samples of a batch have unequal shapes, [3] and [2]; pad ...
    """
    try:
        return default_collate(samples)
    except RuntimeError as error:
        unequal = _unequal(samples)
        if unequal is None:
            raise
        raise DataError(
            f"the samples of a batch have unequal shapes, {unequal}; pad sequences with functrain's "
            "Loader(..., pad_to=64) or DataLoader(..., collate_fn=functrain.data.PaddedCollate(pad_to=64)), or bring "
            "the samples to one shape in the data set"
        ) from error


def _unequal(samples: Any) -> str | None:
    first: dict[str, list[int]] = {}
    for sample in samples:
        for path, leaf in leaves_with_paths(sample):
            if isinstance(leaf, Tensor | np.ndarray):
                known, shape = first.setdefault(path, list(leaf.shape)), list(leaf.shape)
                if known != shape:
                    return f"{known} and {shape}" + (f" (of {path!r})" if path else "")
    return None
