"""What a function and its arguments are, in a few characters: equal code and equal contents give equal ones."""

import functools
import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from functrain.data.gathering import gather_from
from functrain.data.randomness import Randomness
from functrain.data.reading import owners_of
from functrain.foundation.keys import fold_in

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_BLOCK = 1 << 20


def fingerprint_of(function: Callable[..., Any], arguments: Any, version: str) -> str:
    """The fingerprint of a call: 32 hexadecimal digits.

    Args:
        function: its source counts, with that of the functions and the plain constants of its module that it names.
        arguments: arrays, tensors, plain values, `pathlib.Path`s (the contents of the file or folder), map-style data
            sets (all samples are read), and lists, tuples and mappings of these.
        version: of the function, said by its author; needed of one without Python source.

    Raises:
        TypeError: for an argument of another kind.
        ValueError: for a function without source and version, or a text that names a file.
    """
    found = hashlib.blake2b(digest_size=16)
    _add_text(found, f"version {version}")
    for text in _sources(function, version, set()):
        _add_text(found, text)
    _add(found, arguments)
    return found.hexdigest()


def _sources(function: Any, version: str, seen: set[int]) -> Iterator[str]:
    """The source of a function, and of what it names in its module."""
    if isinstance(function, functools.partial):
        yield f"partial {function.args!r} {sorted(function.keywords.items())!r}"
        yield from _sources(function.func, version, seen)
        return
    plain = inspect.unwrap(function) if isinstance(function, FunctionType) else type(function)
    if isinstance(function, FunctionType | type):
        plain = function if isinstance(function, type) else plain
    try:
        yield f"{plain.__qualname__}\n{inspect.getsource(plain)}"
    except (OSError, TypeError):
        if not version:
            raise ValueError(
                f"the source of {plain.__qualname__} cannot be read, so a change of it would not be noticed: give it a "
                "version, cached(..., version='1'), and change that with the function"
            ) from None
        yield plain.__qualname__
    if not isinstance(plain, FunctionType):
        return
    cells = [cell.cell_contents for cell in plain.__closure__ or ()]
    yield f"{[each for each in [*cells, plain.__defaults__, plain.__kwdefaults__] if _is_plain(each)]!r}"
    for name in sorted(_names_in(plain.__code__)):
        value = plain.__globals__.get(name)
        if _is_plain(value):
            yield f"{name} = {value!r}"
        elif isinstance(value, FunctionType) and value.__module__ == plain.__module__ and id(value) not in seen:
            seen.add(id(value))
            yield from _sources(value, version or "of a helper", seen)


def _names_in(code: Any) -> set[str]:
    """The names that code looks up in its module, also in functions within it."""
    inner = [each for each in code.co_consts if hasattr(each, "co_names")]
    return set(code.co_names).union(*map(_names_in, inner))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    return isinstance(value, _PLAIN)


def _add(found: Any, value: Any) -> None:
    """Add a value with its kind and length, so that no two values read the same."""
    if isinstance(value, Tensor):
        _add_text(found, f"tensor {value.dtype} {list(value.shape)}")
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        found.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufcUS":
        _add_text(found, f"array {value.dtype} {list(value.shape)}")
        found.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, os.PathLike):
        _add_path(found, Path(value))
    elif isinstance(value, str) and os.path.isfile(value):
        raise ValueError(f"the argument {value!r} is a text, and a file has this name: give pathlib.Path({value!r})")
    elif isinstance(value, _PLAIN):
        _add_text(found, f"{type(value).__name__} {value!r}")
    elif isinstance(value, Mapping):
        _add_text(found, f"mapping {len(value)}")
        for key, item in value.items():
            _add(found, key)
            _add(found, item)
    elif isinstance(value, (list, tuple)):
        _add_text(found, f"{type(value).__name__} {len(value)}")
        for item in value:
            _add(found, item)
    elif hasattr(value, "__getitem__") and hasattr(value, "__len__"):
        _add_samples(found, value)
    else:
        raise TypeError(
            f"an argument is a {type(value).__name__}, whose content cannot be compared. Give arrays, tensors, "
            "numbers, texts, pathlib.Path, map-style data sets, or lists and mappings of these"
        )


def _add_samples(found: Any, dataset: Any) -> None:
    """All samples of a data set."""
    gather = gather_from(dataset)
    _add_text(found, f"data set {len(dataset)}")
    if gather is not None:
        for tensor in gather.tensors:
            _add(found, tensor if gather.rows is None else tensor.index_select(0, gather.rows))
        return
    randomness = Randomness(*owners_of(dataset))
    with randomness.preserved():
        for index in range(len(dataset)):
            _add(found, randomness.read(fold_in(0, index), partial(dataset.__getitem__, index)))


def _add_path(found: Any, path: Path) -> None:
    """The contents of a file, or the names and contents of all files in a folder."""
    if path.is_dir():
        files = sorted(Path(place, name) for place, _, names in os.walk(path) for name in names)
        _add_text(found, f"folder {len(files)}")
        for file in files:
            _add_text(found, file.relative_to(path).as_posix())
            _add_path(found, file)
        return
    with path.open("rb") as content:
        _add_text(found, f"file {os.fstat(content.fileno()).st_size}")
        while block := content.read(_BLOCK):
            found.update(block)


def _add_text(found: Any, text: str) -> None:
    encoded = text.encode()
    found.update(len(encoded).to_bytes(8, "little") + encoded)
