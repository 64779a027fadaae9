"""The only module that knows orbax: items of named NumPy arrays <-> a directory.

orbax's v1 functions are called
synchronously, from whatever thread we are in. Measured with orbax 0.12.8: about 1 ms per array; the data files are
synced to disk by orbax, its metadata are not.
"""

import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from functrain.foundation.generators import preserved_generators

# Files that orbax writes last; a directory without them was never completed.
COMMIT_MARKERS = ("_CHECKPOINT_METADATA", "commit_success.txt")
_PLACEHOLDER = "functrain"  # orbax refuses a checkpoint without any array

Array = np.ndarray[Any, Any]

_import_lock = threading.Lock()
_imported: Any = None


def save_items(directory: Path, items: Mapping[str, Mapping[str, Array]]) -> None:
    """Write a new directory with one item for each entry of `items`.

    Args:
        directory: absolute; must not exist. It appears when all is written.
        items: for each item, its arrays by key; items without arrays are left out.
    """
    filled = {name: dict(arrays) for name, arrays in items.items() if arrays}
    with _context() as orbax:
        orbax.save_checkpointables(directory, filled or {_PLACEHOLDER: {"none": np.zeros(1, np.uint8)}})


def load_item(
    directory: Path, item: str, wanted: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], *, whole: bool
) -> dict[str, Array]:
    """Read arrays of one item.

    Args:
        directory: as written by `save_items`.
        item: its name.
        wanted: dtype and shape of the arrays to read, by key.
        whole: whether `wanted` is all of the item. If not, orbax gives zeros for a key that it
            does not have, so the caller must verify what comes back in either case.
    """
    # A numpy array as the abstract leaf makes orbax return numpy; broadcasting keeps it at one element.
    abstract = {key: np.broadcast_to(np.zeros((), dtype), shape) for key, (dtype, shape) in wanted.items()}
    with _context(partial_load=not whole) as orbax:
        loaded = orbax.load_checkpointables(directory, {item: abstract})[item]
    return {key: np.asarray(loaded[key]) for key in wanted}


@contextmanager
def _context(*, partial_load: bool = False) -> Iterator[Any]:
    orbax = import_orbax()
    context = orbax.Context()
    # Weights do not compress (8 %), and compressing triples the time of a save.
    context.array.saving.use_compression = False
    # The arrays are ours until the save is done; a second copy costs as much memory as the state.
    context.memory.deepcopy_host_arrays = False
    context.pytree.loading.partial_load = partial_load
    # Else threads wait for directories that could not be made, and keep the process from ending for ten minutes.
    context.async_options.create_directories_asynchronously = False
    quiet = _Quiet()
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(quiet)
    try:
        with context:
            yield orbax
    finally:
        for logger in loggers:
            logger.removeFilter(quiet)


class _Quiet(logging.Filter):
    """Drops orbax's own log lines: an error that it raises it also logs, several times, with tracebacks."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname


def import_orbax() -> Any:
    """Import orbax's v1 API.

    The first call belongs in the thread that trains, at a time when nothing is drawn: while it is imported, jax draws
    from NumPy's global generator. The generators are put back, which would undo what another thread draws meanwhile.

    orbax initialises all of jax's backends. With a CUDA build of jax that would take most of the
    GPU's memory away from torch, so jax is told to use the CPU, unless the user has imported or
    configured jax already.
    """
    global _imported
    if _imported is None:
        with preserved_generators(), _import_lock:
            if "jax" not in sys.modules and "JAX_PLATFORMS" not in os.environ:
                import jax

                jax.config.update("jax_platforms", "cpu")
            from orbax.checkpoint import v1

            _imported = v1
    return _imported
