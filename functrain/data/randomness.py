"""The random generators that a data set or a sampler may draw from, seeded and put back."""

import random
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from functrain.foundation.generator_marks import Mark, global_mark, numpy_bits
from functrain.foundation.generators import CallersGenerators, preserved_generators
from functrain.foundation.keys import KEY_BITS

_SIGN = 1 << (KEY_BITS - 1)
_FIXED = 20  # any number
KINDS = Mark._fields  # of global generators


class Randomness:
    """The global generators of torch (CPU), NumPy and Python, and the ones that `owners` hold in attributes.

    A `torch.Generator`, `numpy.random.Generator`, `numpy.random.RandomState` or `random.Random` that is
    an attribute of an owner (`self.rng` of a data set, `generator` of a sampler) counts; one that is
    hidden deeper, in a list or in an object of an object, is not found.

    Example:
        >>> draws = Randomness()
        >>> with draws.seeded(7):
        ...     first = torch.rand(())
        >>> with draws.seeded(7):
        ...     bool(torch.rand(()) == first)
        True
    """

    def __init__(self, *owners: Any):
        found = [value for owner in owners for value in getattr(owner, "__dict__", {}).values()]
        kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
        own = {id(g): g for g in found if isinstance(g, kinds) and g is not torch.default_generator}
        self.own = list(own.values())
        self._callers = CallersGenerators()
        self._watched: Mark | None = None

    def seed(self, key: int, kinds: Collection[str] = KINDS) -> None:
        """Make everything that is drawn next a function of `key`: from these global generators, and owners'."""
        if "python" in kinds:
            random.seed(key)
        if "numpy" in kinds:
            _seed_numpy(key)
        if "torch" in kinds:
            torch.default_generator.manual_seed(key - 2 * _SIGN if key >= _SIGN else key)
        for own in self.own:
            _seed(own, key)

    def read(self, key: int, reading: Callable[[], Any], kinds: Collection[str] = KINDS) -> Any:
        """What `reading` gives, as a function of `key`; called a second time if modules were imported in the first.

        A data set may import a library at its first sample. If that draws random numbers while it is imported (jax
        does), the sample would differ from the same one in a process that begins with another.
        """
        modules = len(sys.modules)
        self.seed(key, kinds)
        value = reading()
        if len(sys.modules) != modules:
            self.seed(key, kinds)
            value = reading()
        return value

    def watch(self) -> None:
        """Begin to look which global generators are drawn from. All of them have a fixed state then."""
        self.seed(_FIXED)
        self._watched = self._watched or global_mark()

    def drawn(self) -> set[str]:
        """The kinds of global generators whose state has changed since `watch`.

        Example:
            >>> draws = Randomness()
            >>> with draws.preserved():
            ...     draws.watch()
            ...     value = random.random()
            ...     draws.drawn()
            {'python'}
        """
        assert self._watched is not None
        return {kind for kind, now, before in zip(KINDS, global_mark(), self._watched) if now != before}

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """Put all these generators back to where they are now at the end. One thread at a time is within."""
        with preserved_generators(self._callers):
            put_back = [_restorer(own) for own in self.own]
            try:
                yield
            finally:
                for restore in put_back:
                    restore()

    @contextmanager
    def seeded(self, key: int) -> Iterator[None]:
        """Seed with `key`; put everything back at the end."""
        with self.preserved():
            self.seed(key)
            yield


def _seed_numpy(key: int) -> None:
    bits = numpy_bits()
    if type(bits) is np.random.MT19937:
        np.random.seed(key & 0xFFFFFFFF)
    else:
        bits.state = type(bits)(key).state


def _seed(own: Any, key: int) -> None:
    if isinstance(own, torch.Generator):
        own.manual_seed(key - 2 * _SIGN if key >= _SIGN else key)
    elif isinstance(own, random.Random):
        own.seed(key)
    elif isinstance(own, np.random.RandomState):
        own.seed(key & 0xFFFFFFFF)
    else:
        own.bit_generator.state = type(own.bit_generator)(key).state


def _restorer(own: Any) -> Callable[[], object]:
    if isinstance(own, torch.Generator):
        torch_state = own.get_state()
        return lambda: own.set_state(torch_state)
    if isinstance(own, random.Random):
        python_state = own.getstate()
        return lambda: own.setstate(python_state)
    if isinstance(own, np.random.RandomState):
        numpy_state = own.get_state()
        return lambda: own.set_state(numpy_state)
    bits, bit_state = own.bit_generator, own.bit_generator.state
    return lambda: setattr(bits, "state", bit_state)
