"""The global random generators of torch (CPU), Python and NumPy: put back after code that may draw from them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from functrain.foundation.keys import one_thread_draws


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Put the global generators back to where they are now at the end.

    They belong to the whole process, so one thread at a time is within, as in `one_thread_draws`.

    Example:
        >>> with preserved_generators():
        ...     first = torch.rand(())
        >>> bool(torch.rand(()) == first)
        True
    """
    with one_thread_draws():
        torch_state, python_state, numpy_state = (
            torch.default_generator.get_state(),
            random.getstate(),
            np.random.get_state(),
        )
        try:
            yield
        finally:
            torch.default_generator.set_state(torch_state)
            random.setstate(python_state)
            np.random.set_state(numpy_state)
