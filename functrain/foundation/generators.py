"""The global random generators of torch (CPU), Python and NumPy: put back after code that may draw from them."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Put the global generators back to where they are now at the end.

    They belong to the whole process: use this only where no other thread draws from them meanwhile.

    Example:
        >>> with preserved_generators():
        ...     first = torch.rand(())
        >>> bool(torch.rand(()) == first)
        True
    """
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
