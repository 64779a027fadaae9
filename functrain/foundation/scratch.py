"""Temporary folders that outlive no process for long: the next process removes what a killed one left.

Each folder is locked (`flock`) as long as its process lives. The system gives the lock back however the process ends,
in other containers that share the folder too. So a folder without a lock belongs to nobody.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from functrain.foundation.file_locks import try_lock


class ScratchFolder:
    """A new folder, removed by `remove`, at the end of the process, or by a later process.

    Args:
        parent: where it is made, a directory that only this user can write to; folders with the same prefix that
            killed processes left there are removed first. None: `functrain-<user id>` in the system's temporary folder.
        prefix: of its name.

    Attributes:
        path: the folder.

    Raises:
        OSError: if it cannot be made.

    Example:
        >>> folder = ScratchFolder()
        >>> (folder.path / "file").write_text("text")
        4
        >>> folder.remove()
        >>> folder.path.exists()
        False
    """

    def __init__(self, parent: Path | None = None, prefix: str = "scratch-") -> None:
        directory = _own_directory() if parent is None else parent
        if directory is None:
            self.path = Path(tempfile.mkdtemp(prefix="functrain-"))
            lock = None
        else:
            _sweep(directory, prefix if parent is not None else "")
            self.path, lock = _make(directory, prefix)
        self._finalizer = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def remove(self) -> None:
        """Remove it with all that it holds; a second call does nothing."""
        self._finalizer()


@contextmanager
def scratch_folder(parent: Path | None = None, prefix: str = "scratch-") -> Iterator[Path]:
    """A `ScratchFolder` for a block.

    Example:
        >>> with scratch_folder() as path:
        ...     path.is_dir()
        True
    """
    folder = ScratchFolder(parent, prefix)
    try:
        yield folder.path
    finally:
        folder.remove()


def _own_directory() -> Path | None:
    """This user's in the system's temporary folder; None where that name is not this user's alone."""
    if not hasattr(os, "getuid"):
        return None
    path = Path(tempfile.gettempdir()) / f"functrain-{os.getuid()}"
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    is_ours = status.st_uid == os.getuid() and status.st_mode & 0o170077 == 0o040000  # a directory, no link
    return path if is_ours else None


def _make(directory: Path, prefix: str) -> tuple[Path, int | None]:
    """A new folder and its lock; None where the file system has no locks."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another process swept it before it was locked
        except OSError:  # Windows opens no directories
            return path, None
        taken = None
        with suppress(OSError):
            taken = try_lock(lock)
        if taken is None:
            os.close(lock)
            return path, None
        with suppress(FileNotFoundError):
            if taken and os.path.samestat(os.fstat(lock), path.lstat()):
                return path, lock
        os.close(lock)  # being swept


def _sweep(directory: Path, prefix: str) -> None:
    """Remove the folders that nobody has locked."""
    for name in os.listdir(directory):
        if not name.startswith(prefix):
            continue
        path = directory / name
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if try_lock(lock):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _remove(path: Path, lock: int | None, process: int) -> None:
    if os.getpid() == process:  # a forked child leaves its parent's alone
        shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            os.close(lock)
