"""Atomic changes of a directory of checkpoints.

Imports the standard library and the neighbouring modules only.

A checkpoint appears and disappears by one rename. What an interrupted process leaves behind has a
name that starts with a dot and is swept up by the next writer.
"""

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from functrain.checkpoint import names
from functrain.checkpoint.index import INDEX_FILE
from functrain.checkpoint.names import Position
from functrain.checkpoint.orbax_io import COMMIT_MARKERS


def temporary_path(directory: Path, name: str) -> Path:
    """Where the checkpoint `name` is written before it is committed."""
    return directory / f"{names.TEMPORARY_PREFIX}{name}-{uuid.uuid4().hex[:8]}"


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


def list_checkpoints(directory: Path) -> tuple[list[Path], list[Path]]:
    """Committed checkpoints, oldest first, and directories of such names that are not complete."""
    found: list[tuple[Position, Path]] = []
    for entry in _entries(directory):
        position = names.parse_name(entry)
        if position is not None and (directory / entry).is_dir():
            found.append((position, directory / entry))
    paths = [path for _, path in sorted(found)]
    return [p for p in paths if is_committed(p)], [p for p in paths if not is_committed(p)]


def is_committed(path: Path) -> bool:
    """Whether a directory bears the marks of a completed checkpoint."""
    return all((path / file).exists() for file in (*COMMIT_MARKERS, INDEX_FILE))


def next_name(directory: Path, step: int, micro_step: int) -> str:
    """A name that nothing in the directory has."""
    return names.next_position(step, micro_step, _entries(directory)).name


def delete(path: Path) -> None:
    """Delete a checkpoint; it is never seen half deleted."""
    trash = path.with_name(f"{names.TRASH_PREFIX}{path.name}-{uuid.uuid4().hex[:8]}")
    os.rename(path, trash)
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
        temporary = link.with_name(f"{names.TEMPORARY_PREFIX}{link.name}-{uuid.uuid4().hex[:8]}")
        os.symlink(target.name, temporary)
        try:
            os.replace(temporary, link)
        except OSError:
            temporary.unlink()


def _entries(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
