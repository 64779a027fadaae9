"""Random keys as values.

A key is an unsigned 64-bit integer. New keys are *hashed* from old ones, never added to:
`fold_in(key, 1, 2)` and `fold_in(key, 2, 1)` have nothing in common, so streams for
(step, micro-batch), (epoch, index) or ranks cannot meet by arithmetic accident.
"""

import hashlib
import operator
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch

from functrain.foundation.numbers import is_integer

KEY_BITS = 64

T = TypeVar("T")

_lock = threading.RLock()


def _unlock_in_child() -> None:
    """A forked process has one thread; another one's lock would stay closed in it for ever."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


def root_key(seed: int) -> int:
    """Make the key of a run from a user's seed.

    Args:
        seed: any Python integer, negative ones included.

    Returns:
        A key, 0 <= key < 2**64.

    Example:
        >>> root_key(0) == root_key(0), root_key(0) == root_key(1)
        (True, False)
    """
    if not is_integer(seed):
        raise TypeError(f"seed must be an int, got {seed!r} ({type(seed).__name__})")
    return _hash(b"functrain.seed", str(seed).encode())


def fold_in(key: int, *data: int | str) -> int:
    """Derive a new key from `key` and any number of integers or names.

    An integer of NumPy's counts as the Python integer it equals.

    Raises:
        TypeError: for anything else, such as a float.

    Example:
        >>> key = root_key(0)
        >>> fold_in(key, "data", 3) == fold_in(key, "data", 3)
        True
        >>> fold_in(key, 1, 2) == fold_in(key, 2, 1)
        False
    """
    return _hash(key.to_bytes(8, "little"), "\x1f".join(map(_canonical, data)).encode())


def _canonical(item: int | str) -> str:
    """Plain repr: it quotes and escapes strings, so that no two sequences of items read the same."""
    return repr(str(item)) if isinstance(item, str) else repr(int(operator.index(item)))


def _hash(salt: bytes, text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=salt).digest(), "little")


def generator(key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator of its own, seeded with `key`."""
    return torch.Generator(device=device).manual_seed(_signed(key))


def permutation(key: int, length: int) -> torch.Tensor:
    """The permutation of `range(length)` that belongs to `key`, int64 `[length]`.

    Example:
        >>> permutation(root_key(0), 5).sort().values.tolist()
        [0, 1, 2, 3, 4]
    """
    return torch.randperm(length, generator=generator(key))


class Seeded(NamedTuple):
    """Generators that were seeded with a key."""

    key: int
    generators: list[torch.Generator]

    def drew(self) -> bool:
        """Whether anything was drawn from them since.

        Example:
            >>> with torch_seed(7) as seeded:
            ...     before = seeded.drew()
            ...     value = torch.rand(())
            ...     before, seeded.drew()
            (False, True)
        """
        return any(not torch.equal(g.get_state(), generator(self.key, g.device).get_state()) for g in self.generators)


@contextmanager
def torch_seed(key: int, device: torch.device | str = "cpu") -> Iterator["Seeded"]:
    """Seed torch's generators of the CPU and of `device` with `key`; put their states back at the end.

    This is how code that draws from the global generator (`nn.Dropout`, a user's augmentation)
    becomes a function of a key, and leaves no trace in the caller's generators. torch's CPU generator is
    seeded with the lower 32 bits of a key, so that of 100,000 streams one pair may be the same one. One thread at a
    time is within, as in every `one_thread_draws`.
    """
    generators = _default_generators(torch.device(device))
    with one_thread_draws():
        before = [g.get_state() for g in generators]
        for g in generators:
            g.manual_seed(_signed(key))
        try:
            yield Seeded(key, generators)
        finally:
            for g, state in zip(generators, before):
                g.set_state(state)


def for_each_key(keys: Iterable[int], fn: Callable[[], T], device: torch.device | str = "cpu") -> list[T]:
    """What `fn` gives with torch's generators seeded with each key, as of `torch_seed`.

    Example:
        >>> first, second = for_each_key([7, 7], lambda: torch.rand(()))
        >>> bool(first == second)
        True
    """
    generators, results = _default_generators(torch.device(device)), []
    with one_thread_draws():
        before = [g.get_state() for g in generators]
        try:
            for key in keys:
                for g in generators:
                    g.manual_seed(_signed(key))
                results.append(fn())
        finally:
            for g, state in zip(generators, before):
                g.set_state(state)
    return results


def one_thread_draws() -> threading.RLock:
    """The lock under which functrain uses global random generators: `with one_thread_draws(): ...`.

    There is one generator for all threads of a process, so a thread that has seeded it must be alone until it has put
    it back. A thread of the user's that draws without this lock is not kept out.
    """
    return _lock


@contextmanager
def global_seed(key: int) -> Iterator[None]:
    """As `torch_seed` on the CPU, for Python's `random` and NumPy's global generator too."""
    import numpy as np

    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(key)
    np.random.seed([key & 0xFFFFFFFF, key >> 32])  # all of the key: keys that share 32 bits are common
    try:
        with torch_seed(key):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _default_generators(device: torch.device) -> list[torch.Generator]:
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    return generators


def _signed(key: int) -> int:
    """torch takes seeds as signed 64-bit integers."""
    return key - (1 << KEY_BITS) if key >> (KEY_BITS - 1) else key
