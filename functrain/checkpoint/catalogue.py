"""What the checkpoints of a directory say about themselves. Imports the neighbouring modules only.

Retention asks after every save. Reading all indexes each time took a quarter of a save of 2,000 small leaves,
and the interpreter from the training meanwhile; so an index is read once for as long as it is the same file.
"""

from contextlib import suppress
from pathlib import Path

from functrain.checkpoint import files
from functrain.checkpoint.index import INDEX_FILE, Index
from functrain.checkpoint.info import CheckpointInfo, checkpoint_directory, make_info, read_info
from functrain.checkpoint.uninterrupted import uninterrupted
from functrain.foundation.errors import CheckpointError

_Identity = tuple[int, ...]


class Catalogue:
    """The checkpoints of a directory, those that can be read and why the others cannot."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[_Identity, CheckpointInfo]] = {}

    def read(self) -> tuple[list[CheckpointInfo], list[CheckpointError]]:
        """What can be read, oldest first, and why the rest cannot: incomplete, or the index is damaged."""
        return uninterrupted(self._read)

    def _read(self) -> tuple[list[CheckpointInfo], list[CheckpointError]]:
        found: list[CheckpointInfo] = []
        failures: list[CheckpointError] = []
        known: dict[str, tuple[_Identity, CheckpointInfo]] = {}
        for path in files.list_checkpoints(self._directory):
            try:
                files.require_complete(path)
                known[path.name] = self._entry(path)
                found.append(known[path.name][1])
            except CheckpointError as error:
                failures.append(error)
        self._known = known  # what was deleted is forgotten
        return found, failures

    def remember(self, path: Path, index: Index) -> None:
        """What has just been written need not be read."""
        with suppress(OSError):
            self._known[path.name] = _identity(path), make_info(checkpoint_directory(path), index)

    def _entry(self, path: Path) -> tuple[_Identity, CheckpointInfo]:
        known = self._known.get(path.name)
        identity: _Identity = ()
        with suppress(OSError):  # the reader says better what is wrong
            identity = _identity(path)
        if known is not None and known[0] == identity:
            return known
        return identity, read_info(path)


def _identity(path: Path) -> _Identity:
    status = (path / INDEX_FILE).stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
