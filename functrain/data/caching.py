"""Results of slow preprocessing, kept on disk under what they were computed from."""

import json
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from functrain.data.fingerprints import fingerprint_of
from functrain.data.iterables import DataWarning
from functrain.data.memory_mapped import MemoryMapped
from functrain.foundation.errors import DataError
from functrain.foundation.file_locks import try_lock
from functrain.foundation.keys import global_seed
from functrain.foundation.scratch import scratch_folder

ENTRY = "entry.json"
BUILDING, LOCK = ".building-", ".lock"
LIMIT = 20 * 2**30
_WAIT = 0.05  # seconds between looks at a lock
_BLOCK = 1 << 20


def cached(
    function: Callable[..., Any],
    *arguments: Any,
    folder: str | os.PathLike[str],
    version: str = "",
    limit_bytes: int = LIMIT,
) -> MemoryMapped:
    """The arrays that a function computes, from disk if it has computed them before of the same things.

    They are kept under a fingerprint of the function's source (with the helpers and constants of its module), of
    `version` and of the contents of the arguments. So another function, other data or other arguments are another
    entry. Where processes ask at the same time, one computes and the others wait. What the function draws from global
    generators follows from the fingerprint.

    An entry appears when it is complete. One that is damaged is computed again, with a `DataWarning`.

    Args:
        function: gives an array or a tensor `[N, ...]`, or a tuple of them, with a row for each example.
        *arguments: of the function: arrays, tensors, plain values, `pathlib.Path`s (a file or folder counts by its
            contents), map-style data sets (all samples are read), and lists and mappings of these.
        folder: of the cache. `clear_cache(folder)` empties it.
        version: say another one if the function changes in a way that its source does not show, such as a new
            release of a library.
        limit_bytes: what the cache may take; the entries that were not used for longest are removed first.

    Returns:
        The arrays as a data set, mapped into memory.

    Raises:
        TypeError: for an argument whose content cannot be compared, or a result that is no array.
        ValueError: for a text that names a file, or a function whose source cannot be read without a `version`.
        DataError: if the results have unequal lengths.

    Example:
        >>> import tempfile
        >>> def squares(values):
        ...     print("computing")
        ...     return values**2
        >>> with tempfile.TemporaryDirectory() as place:
        ...     first = cached(squares, np.arange(3.0), folder=place, version="1")
        ...     again = cached(squares, np.arange(3.0), folder=place, version="1")
        ...     len(again), again[2][0].item()
        computing
        (3, 4.0)
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    key = fingerprint_of(function, arguments, version)
    entry = root / key
    found = _opened(entry)
    if found is not None:
        return found
    with _alone(root / f".{key}{LOCK}"):
        found = _opened(entry)  # another process may have computed it meanwhile
        if found is None:
            with global_seed(int(key[:16], 16)):
                results = function(*arguments)
            _write(entry, _arrays(results), function)
            _make_room(root, entry, limit_bytes)
            found = _opened(entry)
    if found is None:
        raise DataError(f"the entry {entry} of the cache was removed while it was written; run it again")
    return found


def clear_cache(folder: str | os.PathLike[str]) -> int:
    """Remove all entries of a cache, and nothing else that may be in its folder.

    Returns:
        How many there were.

    Example:
        >>> clear_cache("a folder that is not there")
        0
    """
    root = Path(folder)
    entries = _entries(root)
    for entry in entries:
        shutil.rmtree(entry)
    if root.is_dir():
        for rest in [*root.glob(f".*{LOCK}"), *root.glob(f"{BUILDING}*")]:
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink(missing_ok=True)
    return len(entries)


def _opened(entry: Path) -> MemoryMapped | None:
    """The data set of an entry; None if there is none. A damaged one is removed, with a warning."""
    if not entry.is_dir():
        return None
    try:
        files = json.loads((entry / ENTRY).read_text(encoding="utf-8"))["files"]
        for file in files:
            path = entry / file["name"]
            if _checksum(path) != [file["size"], file["crc32"]]:
                raise DataError(f"the content of {path} is not what was written")
        data = MemoryMapped(*(entry / file["name"] for file in files))
        os.utime(entry / ENTRY)  # it is in use
    except (DataError, OSError, ValueError, KeyError, TypeError) as error:
        if not entry.is_dir():
            return None  # another process removed it
        warnings.warn(
            f"the entry {entry} of the cache is damaged and computed again: {error}", DataWarning, stacklevel=3
        )
        shutil.rmtree(entry, ignore_errors=True)
        return None
    return data


def _write(entry: Path, arrays: list[np.ndarray], function: Callable[..., Any]) -> None:
    """Write an entry; it appears when it is complete."""
    with scratch_folder(entry.parent, BUILDING) as scratch:
        new, files = scratch / entry.name, []
        new.mkdir()
        for number, array in enumerate(arrays):
            path = new / f"{number}.npy"
            np.save(path, array, allow_pickle=False)
            size, checksum = _checksum(path)
            files.append({"name": path.name, "size": size, "crc32": checksum})
        about = {"function": getattr(function, "__qualname__", type(function).__name__), "files": files}
        (new / ENTRY).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        with suppress(OSError):  # where there are no locks, another process may have been faster
            new.rename(entry)


def _arrays(results: Any) -> list[np.ndarray]:
    given = results if isinstance(results, (tuple, list)) else (results,)
    arrays = []
    for each in given:
        array = each.detach().cpu().numpy() if isinstance(each, Tensor) else each
        if not isinstance(array, np.ndarray) or array.ndim == 0 or array.dtype.kind not in "biufc":
            raise TypeError(
                f"the function must give arrays or tensors [N, ...] of numbers, one or a tuple of them; got "
                f"{type(each).__name__}"
            )
        arrays.append(array)
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(f"the function's arrays must have a row for each example; they have {sorted(lengths)} rows")
    return arrays


def _checksum(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return [size, checksum]


def _entries(root: Path) -> list[Path]:
    return [file.parent for file in root.glob(f"*/{ENTRY}")]


def _make_room(root: Path, used: Path, limit_bytes: int) -> None:
    """Remove the entries that were not used for longest, until the rest fits; never the one just written."""
    sizes: dict[Path, tuple[float, int]] = {}
    for entry in _entries(root):
        with suppress(OSError):  # another process removes it
            size = sum(file.stat().st_size for file in entry.iterdir())
            sizes[entry] = (entry.joinpath(ENTRY).stat().st_mtime, size)
    total = sum(size for _, size in sizes.values())
    for entry, (_, size) in sorted(sizes.items(), key=lambda item: item[1]):
        if total > limit_bytes and entry != used:
            shutil.rmtree(entry, ignore_errors=True)
            total -= size


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time is within, where the file system has locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while try_lock(descriptor) is False:
            time.sleep(_WAIT)
        yield
    finally:
        os.close(descriptor)
