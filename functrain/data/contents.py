"""What a data set holds, in a few characters: a resumed run compares them.

Tensors in memory are hashed as a whole up to 16 MiB, which takes some 20 ms; of larger ones, and of data sets that
compute or read their samples, first, last and some samples in between are looked at. That finds another file, another
order or another preprocessing; not a single sample that was changed in a large data set.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from functrain.data.gathering import gather_from
from functrain.data.randomness import Randomness
from functrain.data.reading import one_thread, owners_of
from functrain.foundation.keys import generator

WHOLE_NBYTES = 2**24
ROWS = 64  # of a larger one in memory
SAMPLES = 8  # where each must be computed or read
_KEY = 0  # any constant: where to look, and what transforms draw


def content_digest(dataset: Any, *, reads: bool = True) -> str | None:
    """A fingerprint of a map-style data set's contents.

    Args:
        dataset: with `len()` and samples by number.
        reads: whether samples may be read here. Where workers read, the training process should not: a file that
            it opens first would be shared with them.

    Returns:
        16 hexadecimal digits, or None if it cannot be told: no length, or a sample that cannot be read.

    Example:
        >>> from functrain.data import Arrays
        >>> content_digest(Arrays(torch.arange(3))) == content_digest(Arrays(torch.tensor([0, 1, 2])))
        True
        >>> content_digest(Arrays(torch.arange(3))) == content_digest(Arrays(torch.tensor([0, 1, 3])))
        False
    """
    found = hashlib.blake2b(digest_size=8)
    try:
        count = len(dataset)
        gather = gather_from(dataset)
        if gather is None and not reads:
            return None
        _add(found, count)
        if gather is not None:
            nbytes = sum(count * (t.nbytes // max(len(t), 1)) for t in gather.tensors)
            _add(found, gather(_positions(count, count if nbytes <= WHOLE_NBYTES else ROWS)))
        else:
            with Randomness(*owners_of(dataset)).preserved(), one_thread():
                _add(found, _samples(dataset, count))
    except Exception:  # whatever is wrong with the data set, training will say it better
        return None
    return found.hexdigest()


def weights_digest(weights: Tensor) -> str:
    """A fingerprint of the weights by which examples are drawn: 16 hexadecimal digits.

    Example:
        >>> weights_digest(torch.tensor([1.0, 2.0])) == weights_digest(torch.tensor([1.0, 3.0]))
        False
    """
    found = hashlib.blake2b(digest_size=8)
    _add(found, weights)
    return found.hexdigest()


def _samples(dataset: Any, count: int) -> list[Any]:
    randomness = Randomness(*owners_of(dataset))
    return [randomness.read(_KEY, partial(dataset.__getitem__, i)) for i in _positions(count, SAMPLES).tolist()]


def _positions(count: int, wanted: int) -> Tensor:
    """First, last, and others in between that only the count decides."""
    if count <= wanted:
        return torch.arange(count)
    between = torch.randint(count, (wanted - 2,), generator=generator(_KEY))
    return torch.cat([torch.tensor([0, count - 1]), between])


def _add(found: Any, value: Any) -> None:
    """Add a value with its kind; what is neither array, text, number nor container counts by its type alone."""
    found.update(type(value).__name__.encode() + b"\0")
    if isinstance(value, Tensor):
        found.update(f"{value.dtype}{list(value.shape)}".encode())
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, (np.ndarray, np.generic)):
        found.update(f"{value.dtype}{list(value.shape)}".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _add(found, key)
            _add(found, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _add(found, item)
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        found.update(repr(value).encode() + b"\0")
    elif callable(getattr(value, "tobytes", None)):  # an image of PIL
        found.update(value.tobytes())
