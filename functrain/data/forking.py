"""Starts worker processes without a false alarm."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from functrain.data.worker_loss import WatchedIterator


def start_iterating(loader: Iterable[Any]) -> Iterator[Any]:
    """`iter(loader)`, which may fork workers.

    jax (under the checkpoints) warns of any fork once it is loaded, but workers never call it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        return WatchedIterator(iter(loader))
