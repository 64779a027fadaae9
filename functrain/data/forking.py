"""Starts worker processes without a false alarm."""

import multiprocessing
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from functrain.data.worker_loss import WatchedIterator


def start_iterating(loader: Iterable[Any]) -> Iterator[Any]:
    """`iter(loader)`, which may fork workers.

    jax (under the checkpoints) warns of any fork once it is loaded, but workers never call it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        return WatchedIterator(iter(loader), spawns=_spawns(loader))


def _spawns(loader: Iterable[Any]) -> bool:
    """Whether the loader's workers are new interpreters, and no copies of this process."""
    context = loader.multiprocessing_context if isinstance(loader, DataLoader) else None
    if context is not None:
        return bool(context.get_start_method() != "fork")
    return (multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]) != "fork"
