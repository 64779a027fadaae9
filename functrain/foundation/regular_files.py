"""Files that are read as a whole: regular ones, of bounded size. A fifo would keep the reader waiting for ever."""

import errno
import io
import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a fifo", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}  # fmt: skip


class IrregularFileError(OSError):
    """Something else is in a file's place."""


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a file for reading its bytes.

    Raises:
        IrregularFileError: it is a fifo, a device, a socket or a directory.
        OSError: it cannot be opened.
    """
    require_regular(path, os.stat(path))  # before it is opened: a device may act on that
    # It may have been replaced since; without waiting for a fifo's writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        require_regular(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_regular(path: str | os.PathLike[str], status: os.stat_result) -> None:
    """See that a file is one.

    Raises:
        IrregularFileError: it is something else.
    """
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise IrregularFileError(errno.EINVAL, f"it is {kind}, not a regular file", os.fspath(path))


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a file.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        IrregularFileError: it is something else, or has more.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise IrregularFileError(errno.EFBIG, f"it has {size:,} bytes, at most {most:,} are allowed", str(path))
        return file.read(most + 1)
