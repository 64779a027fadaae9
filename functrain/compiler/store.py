"""Compiled programs on disk, for the next start.

Packages are native code, so they live in the user's own cache directory, never in a run directory, which people
share. A file's name holds the key it was made for and the checksum of its content: what does not agree with
its name is not loaded. Files appear by an atomic rename, so any number of processes may write at once.
"""

import hashlib
import os
import shutil
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from functrain.foundation.file_locks import try_lock, unlock
from functrain.foundation.regular_files import open_regular
from functrain.foundation.scratch import scratch_folder

DIRECTORY_VARIABLE = "FUNCTRAIN_CACHE_DIR"
LIMIT_VARIABLE = "FUNCTRAIN_CACHE_GB"
DEFAULT_LIMIT_GB = 4.0
_POLL = 0.05  # seconds
_NO_HOME = "there is no home directory to keep the compiled step in"
_NOT_OURS = (
    "{} is not used for compiled steps, as others can write to it, and what lies there is run. Make it yours alone "
    "(chmod 700)"
)


class StoreWarning(UserWarning):
    """A compiled program was not taken from the store, or not kept there, and why."""


class Store:
    """Files by key, at most `limit` bytes of them; the ones unused for longest make room.

    Args:
        directory: made at the first `put`, for the user alone. None keeps nothing: there is no home directory.
        limit: in bytes.

    Example:
        >>> import tempfile
        >>> store = Store(Path(tempfile.mkdtemp()), limit=1000)
        >>> made = Path(tempfile.mkdtemp()) / "made"
        >>> _ = made.write_bytes(b"code")
        >>> path = store.put("abc", made)
        >>> path.read_bytes(), store.get("abc") == path, store.get("abd")
        (b'code', True, None)
    """

    def __init__(self, directory: Path | None, limit: int) -> None:
        self.directory = directory
        self.limit = limit

    def get(self, key: str) -> Path | None:
        """The file kept under `key`, or None. A damaged one is removed, with a warning."""
        if self.directory is None or not _is_ours(self.directory):
            return None  # `put` says why
        for path in self.directory.glob(f"{key}-*.pt2"):
            try:
                if _checksum(path) == path.stem.removeprefix(f"{key}-"):
                    with suppress(OSError):  # a file system that is read-only
                        os.utime(path)  # used just now
                    return path
                path.unlink()
            except OSError:
                continue  # another process has removed it
            warnings.warn(f"the compiled step {path} was damaged; it is built anew", StoreWarning, stacklevel=2)
        return None

    def problem(self) -> str:
        """Why nothing is kept; empty if nothing is known to prevent it."""
        if self.directory is None:
            return _NO_HOME
        place = next(each for each in (self.directory, *self.directory.parents) if each.exists())
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            return f"{place} is {'a directory that you may not write to' if place.is_dir() else 'a file'}"
        return _NOT_OURS.format(self.directory) if place == self.directory and not _is_ours(place) else ""

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """A turn in which no other process has one for this key; where the system has no locks, nobody waits."""
        if self.directory is None:
            yield
            return
        place = self.directory / f".turn-{key}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(place, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError:
            yield  # `put` says why nothing can be kept
            return
        try:
            while try_lock(file) is False:
                time.sleep(_POLL)
            yield
        finally:
            with suppress(OSError):
                place.unlink()  # who waits has it open, and looks into the store
                unlock(file)
            os.close(file)

    def put(self, key: str, made: Path) -> Path | None:
        """Keep a copy of the file `made` under `key`; where it cannot be kept, None (with a warning)."""
        if self.directory is None:
            _warn(_NO_HOME)
            return None
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not _is_ours(self.directory):
                _warn(_NOT_OURS.format(self.directory))
                return None
            with scratch_folder(self.directory, ".making-") as folder:
                copy = Path(shutil.copy(made, folder))
                path = self.directory / f"{key}-{_checksum(made)}.pt2"
                os.replace(copy, path)
            _make_room(self.directory, self.limit, path)
            return path
        except OSError as error:  # without its path, which differs from step to step: Python shows equal warnings once
            _warn(f"the compiled step cannot be kept in {self.directory} ({error.strerror})")
            return None


def _warn(text: str) -> None:
    warnings.warn(
        f"{text}. Training goes on, and the next start will compile again. The environment variable "
        f"{DIRECTORY_VARIABLE} can name another directory",
        StoreWarning,
        stacklevel=3,
    )


def _is_ours(directory: Path) -> bool:
    """Native code is taken only from a directory that nobody else can write to."""
    try:
        status = directory.stat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _make_room(directory: Path, limit: int, newest: Path) -> None:
    files = []
    for path in directory.glob("*.pt2"):
        try:
            files.append((path.stat().st_mtime, path.stat().st_size, path))
        except OSError:
            continue  # another process has removed it
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            total -= size


def default_store() -> Store:
    """The user's: `$FUNCTRAIN_CACHE_DIR`, or `functrain` in the system's cache directory; at most
    `$FUNCTRAIN_CACHE_GB` gigabytes (4 if not set).

    Raises:
        ValueError: if that is no number.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    place: Path | None
    directory = os.environ.get(DIRECTORY_VARIABLE) or f"{base}/functrain"
    limit = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_GB)
    try:
        gigabytes = float(limit)
    except ValueError:
        raise ValueError(f"{LIMIT_VARIABLE} must be a number of gigabytes, such as 4; got {limit!r}") from None
    try:
        place = Path(directory).expanduser() / "programs"
    except RuntimeError:  # there is no home directory
        place = None
    return Store(place, int(gigabytes * 1e9))


def _checksum(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
