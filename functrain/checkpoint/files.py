"""Atomic changes of a directory of checkpoints.

A checkpoint appears and disappears by one rename. What an interrupted process leaves behind has a
name that starts with a dot and is swept up by the next writer.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from functrain.checkpoint import names
from functrain.checkpoint.errors import DamagedCheckpointError
from functrain.checkpoint.index import INDEX_FILE
from functrain.checkpoint.names import Position
from functrain.checkpoint.orbax_io import COMMIT_MARKERS
from functrain.foundation.errors import CheckpointError

_PROBED = 65_536  # bytes; all of orbax's small files are a few thousand
_FILES = 64  # more than orbax makes for a state's groups


def temporary_path(directory: Path, name: str) -> Path:
    """Where the checkpoint `name` is written before it is committed."""
    return directory / f"{names.TEMPORARY_PREFIX}{name}-{uuid.uuid4().hex[:8]}"


def make_directory(directory: Path) -> None:
    """Make a directory and its parents; none of them is lost in a power failure."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync(path.parent)


def require_room(directory: Path, nbytes: int) -> None:
    """Look whether a directory can take a checkpoint, before orbax has written a part of it.

    Where the first of orbax's small files is refused, tensorstore is still at work for it, and prints that nobody
    waits for its answer any more. A file of our own, written first, meets a quota, too.

    Args:
        directory: where the checkpoint is to be.
        nbytes: of its arrays and its index.

    Raises:
        OSError: it cannot be written to, or has less space than that.
    """
    if hasattr(os, "statvfs"):
        room = os.statvfs(directory)
        # Some file systems do not count files: they say 0.
        if room.f_bavail * room.f_frsize < nbytes or (room.f_files and room.f_favail < _FILES):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
    probe = directory / f"{names.TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}"
    probe.mkdir()
    file = probe / "room"
    try:
        file.write_bytes(bytes(_PROBED))
    finally:
        file.unlink(missing_ok=True)
        probe.rmdir()


@contextmanager
def write_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is complete and on the disk; an existing one is replaced.

    Raises:
        CheckpointError: it cannot be written; what was there before is unchanged.
    """
    if not path.parent.is_dir():
        raise CheckpointError(f"could not write {path}: there is no directory {path.parent}; make it first")
    temporary = temporary_path(path.parent, path.name)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CheckpointError(f"could not write {path}: {error.strerror or error}") from error
        raise


def commit(temporary: Path, final: Path) -> None:
    """Make a written checkpoint visible, so that it survives a power failure once it is."""
    sync_tree(temporary)
    os.rename(temporary, final)
    _sync(final.parent)


def sync_tree(directory: Path) -> None:
    """Flush every file and directory below `directory` to the disk.

    orbax has synced the large files already, which makes syncing them again cheap, but not its
    metadata and markers.
    """
    for root, _, files in os.walk(directory, topdown=False):
        for file in files:
            _sync(Path(root, file))
        _sync(Path(root))


def list_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints, oldest first. They appear complete, so one that is not has been damaged since."""
    found: list[tuple[Position, Path]] = []
    for entry in _entries(directory):
        position = names.parse_name(entry)
        if position is not None and (directory / entry).is_dir():
            found.append((position, directory / entry))
    return [path for _, path in sorted(found)]


def list_set_aside(directory: Path) -> list[Path]:
    """Checkpoints that were found damaged earlier and renamed, by name."""
    return [
        directory / entry
        for entry in sorted(_entries(directory))
        if names.parse_name(entry.partition(names.DAMAGED_SUFFIX)[0]) is not None and names.DAMAGED_SUFFIX in entry
    ]


def require_complete(path: Path) -> None:
    """Look whether a checkpoint bears its marks, without reading it.

    Raises:
        DamagedCheckpointError: one of the files that are written last is missing.
    """
    for file in (*COMMIT_MARKERS, INDEX_FILE):
        if not (path / file).exists():
            raise DamagedCheckpointError(path, f"its file {file} is missing")


def next_name(directory: Path, step: int, micro_step: int) -> str:
    """A name that nothing in the directory has."""
    return names.next_position(step, micro_step, _entries(directory)).name


def delete(path: Path) -> None:
    """Delete a checkpoint; it is never seen half deleted."""
    trash = path.with_name(f"{names.TRASH_PREFIX}{path.name}-{uuid.uuid4().hex[:8]}")
    os.rename(path, trash)
    _sync(path.parent)  # else a power failure could leave a half deleted checkpoint under its name
    shutil.rmtree(trash)


def sweep(directory: Path) -> None:
    """Remove what interrupted writers left behind. For the one writer of the directory only."""
    for entry in _entries(directory):
        if entry.startswith((names.TEMPORARY_PREFIX, names.TRASH_PREFIX)):
            path = directory / entry
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it is kept for inspection but no longer offered."""
    target, number = path.with_name(path.name + names.DAMAGED_SUFFIX), 1
    while os.path.lexists(target):
        target = path.with_name(f"{path.name}{names.DAMAGED_SUFFIX}.{number}")
        number += 1
    os.rename(path, target)
    return target


def point_link(link: Path, target: Path | None) -> None:
    """Let the symlink `link` name `target` of the same directory, or nothing; failure is ignored."""
    with suppress(OSError, NotImplementedError):
        if target is None:
            if link.is_symlink():
                link.unlink()
            return
        if link.is_symlink() and os.readlink(link) == target.name:
            return
        temporary = link.with_name(f"{names.TEMPORARY_PREFIX}{link.name}-{uuid.uuid4().hex[:8]}")
        os.symlink(target.name, temporary)
        try:
            os.replace(temporary, link)
        except OSError:
            temporary.unlink()


def _entries(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
