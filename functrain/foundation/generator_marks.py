"""Whether anything was drawn from the global random generators, in about 2 us.

Python and NumPy copy their states into tuples and arrays number by number, which takes some 40 us. Here the bytes of
the states are compared where they lie. Where they lie is found by a test in this process; where it is not found, the
states are copied.
"""

import ctypes
import functools
import random
import struct
import sys
from typing import Any, NamedTuple

import numpy as np
import torch

_WORDS = struct.Struct("=624I")  # of a Mersenne twister; the position, an int, stands behind or before them
_BYTES = _WORDS.size + 4
_PYTHON: Any = random.random.__self__  # type: ignore[attr-defined]  # the instance behind the functions of `random`
_NUMPY: Any = np.random.get_state.__self__  # type: ignore[attr-defined]


class Mark(NamedTuple):
    """Differs from another mark where a global generator has another state.

    Attributes:
        torch: the state of torch's generator on the CPU.
        python: that of Python's, and the normal number that it has drawn ahead or None.
        numpy: that of NumPy's, as bytes if they can be put back, and its flag and normal number drawn ahead.
    """

    torch: bytes
    python: tuple[Any, float | None]
    numpy: tuple[Any, Any]


def global_mark() -> Mark:
    """The mark of the global generators as they are now.

    Example:
        >>> before = global_mark()
        >>> global_mark() == before, random.random() < 1, global_mark() == before
        (True, True, False)
    """
    torch_state = torch.default_generator.get_state()
    torch_bytes = ctypes.string_at(torch_state.data_ptr(), torch_state.nbytes)
    memory = _python_memory()
    python = random.getstate() if memory is None else memory.raw
    return Mark(torch_bytes, (python, _PYTHON.gauss_next), _numpy_mark())


def numpy_bits() -> np.random.BitGenerator:
    """What NumPy's global functions draw from."""
    return np.random.get_bit_generator()  # type: ignore[attr-defined]


def put_back_numpy(mark: Mark) -> bool:
    """Put NumPy's generator back to where it was when the mark was taken; False if that needs `set_state`.

    It does where a normal number was drawn ahead, then or now: it lies in memory that is only read here.
    """
    memory = _numpy_memory()
    state, normal = mark.numpy
    if memory is None or not isinstance(state, bytes) or _drawn_ahead(normal) or _drawn_ahead(_numpy_mark()[1]):
        return False
    ctypes.memmove(memory, state, _BYTES)
    return True


def _numpy_mark() -> tuple[Any, Any]:
    memory, normal = _numpy_memory(), _normal_memory()
    if memory is None or normal is None:
        return _comparable(np.random.get_state(legacy=False)), None
    return memory.raw, normal.raw


def _drawn_ahead(normal: Any) -> bool:
    return normal is None or normal[:4] != bytes(4)


@functools.cache
def _python_memory() -> Any:
    probe = random.Random(20)
    *words, position = probe.getstate()[1]
    place = _found(probe, random.Random, struct.pack("=i", position) + _WORDS.pack(*words))
    return None if place is None else _view(id(_PYTHON) + place, _BYTES)


def _numpy_memory() -> Any:
    bits = numpy_bits()
    return _twister_memory(bits) if type(bits) is np.random.MT19937 and _normal_memory() is not None else None


@functools.lru_cache(1)
def _twister_memory(bits: Any) -> Any:
    return _view(bits.ctypes.state_address, _BYTES)


@functools.cache
def _normal_memory() -> Any:
    """The flag (4 bytes) and the normal number (8 bytes behind it) in NumPy's global `RandomState`."""
    bits = np.random.MT19937(20)
    probe = np.random.RandomState(bits)
    state: Any = bits.state["state"]
    if _view(bits.ctypes.state_address, _BYTES).raw != state["key"].tobytes() + struct.pack("=i", state["pos"]):
        return None
    probe.standard_normal()
    after: Any = probe.get_state(legacy=False)
    place = _found(probe, np.random.RandomState, struct.pack("=d", after["gauss"]))
    if place is None or place < 8:
        return None
    flag = _view(id(probe) + place - 8, 4)
    before = flag.raw
    probe.standard_normal()
    found = before == struct.pack("=i", 1) and flag.raw == struct.pack("=i", 0)
    return _view(id(_NUMPY) + place - 8, 16) if found else None


def _found(owner: Any, kind: type, state: bytes) -> int | None:
    """How far behind the beginning of an object its memory holds these bytes."""
    if sys.implementation.name != "cpython":  # elsewhere `id` is no address
        return None
    place = _view(id(owner), kind.__basicsize__).raw.find(state)
    return None if place < 0 else place


def _view(address: int, size: int) -> Any:
    return (ctypes.c_char * size).from_address(address)


def _comparable(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _comparable(part) for name, part in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state
