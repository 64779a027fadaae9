"""The global random generators of torch (CPU), Python and NumPy: put back after code that may draw from them."""

import dataclasses
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from functrain.foundation.generator_marks import Mark, global_mark, put_back_numpy
from functrain.foundation.keys import one_thread_draws


@dataclasses.dataclass(frozen=True)
class GeneratorStates:
    """The states of the global generators at one moment."""

    mark: Mark
    torch: torch.Tensor
    python: Any
    numpy: Any

    def put_back(self) -> None:
        """Set the generators to these states."""
        torch.default_generator.set_state(self.torch)
        random.setstate(self.python)
        if not put_back_numpy(self.mark):
            np.random.set_state(self.numpy)


class CallersGenerators:
    """Takes the states of the global generators, for code that seeds them again and again.

    Copying all three takes some 40 us. So they are copied again only where they have changed.

    Example:
        >>> callers = CallersGenerators()
        >>> states = callers.take()
        >>> first = torch.rand(())
        >>> states.put_back()
        >>> bool(torch.rand(()) == first)
        True
    """

    def __init__(self) -> None:
        self._last: GeneratorStates | None = None

    def take(self) -> GeneratorStates:
        """The states as they are now."""
        mark, last = global_mark(), self._last
        if last is None or last.mark != mark:
            copies = torch.default_generator.get_state(), random.getstate(), np.random.get_state(legacy=False)
            last = self._last = GeneratorStates(mark, *copies)
        return last


@contextmanager
def preserved_generators(callers: CallersGenerators | None = None) -> Iterator[None]:
    """Put the global generators back to where they are now at the end.

    They belong to the whole process, so one thread at a time is within, as in `one_thread_draws`.

    Args:
        callers: takes the states; give one that is kept to code that is within again and again.

    Example:
        >>> with preserved_generators():
        ...     first = torch.rand(())
        >>> bool(torch.rand(()) == first)
        True
    """
    with one_thread_draws():
        states = (callers or CallersGenerators()).take()
        try:
            yield
        finally:
            states.put_back()
