"""The files of a checkpoint, with sizes and checksums.

Every array has a checksum of its own, so what this adds is that truncated, missing and altered
files are found before orbax opens them: orbax reports such damage unclearly and late, and leaves
background tasks behind that fail noisily.
"""

import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from functrain.checkpoint.errors import DamagedCheckpointError
from functrain.foundation.regular_files import read_regular, require_regular

# Larger files hold array data, whose checksums are taken from memory and need no second reading.
CHECKSUM_UP_TO = 2**20


class FileRecord(NamedTuple):
    """Size in bytes and, for small files, the CRC-32."""

    size: int
    crc32: int | None


def take_inventory(directory: Path) -> dict[str, FileRecord]:
    """Sizes and checksums of all files below `directory`, by path with forward slashes."""
    return {
        path.relative_to(directory).as_posix(): _record(path, size, size <= CHECKSUM_UP_TO)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        for size in [path.stat().st_size]
    }


def check_inventory(directory: Path, files: Mapping[str, FileRecord], items: Collection[str]) -> None:
    """Compare the files of some items, and those that belong to no item, with their records.

    Raises:
        DamagedCheckpointError: a file is missing or not the one that was written.
    """
    for name, expected in files.items():
        parts = name.split("/")
        if len(parts) > 1 and parts[0] not in items:
            continue
        path = directory.joinpath(*parts)
        try:
            status = path.stat()
            require_regular(path, status)
            # Of another size it is not read: it may have any.
            with_checksum = expected.crc32 is not None and status.st_size == expected.size
            found = _record(path, status.st_size, with_checksum)
        except (FileNotFoundError, NotADirectoryError):
            raise DamagedCheckpointError(directory, f"its file {name} is missing") from None
        if found.size != expected.size:
            raise DamagedCheckpointError(
                directory, f"its file {name} has {found.size} bytes, {expected.size} were written"
            )
        if found.crc32 != expected.crc32:
            raise DamagedCheckpointError(directory, f"the checksum of its file {name} does not match")


def _record(path: Path, size: int, with_checksum: bool) -> FileRecord:
    return FileRecord(size, zlib.crc32(read_regular(path, size)) if with_checksum else None)
