"""What the checkpoints of a directory say about themselves.

Retention asks after every save. Reading all indexes each time took a quarter of a save of 2,000 small leaves,
and the interpreter from the training meanwhile; so an index is read once for as long as it is the same file.
"""

from contextlib import suppress
from pathlib import Path

from functrain.checkpoint import files
from functrain.checkpoint.index import INDEX_FILE, Index
from functrain.checkpoint.info import CheckpointInfo, checkpoint_directory, make_info, read_info
from functrain.checkpoint.names import parse_name
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
        for path in self.in_order():
            try:
                files.require_complete(path)
                known[path.name] = self._entry(path)
                found.append(known[path.name][1])
            except CheckpointError as error:
                failures.append(error)
        self._known = known  # what was deleted is forgotten
        return found, failures

    def in_order(self) -> list[Path]:
        """The checkpoints, oldest first: by what they say about themselves, whatever name a copy was given.

        A name counts only where that cannot be read, and between checkpoints of one update.
        """
        return sorted(files.list_checkpoints(self._directory), key=self._place)

    def _place(self, path: Path) -> tuple[int, int, bool, int]:
        named = parse_name(path.name)
        assert named is not None
        try:
            known = self._known[path.name] = self._entry(path)
        except CheckpointError:
            return named.step, named.micro_step, True, named.revision
        info = known[1]
        return info.step, info.micro_step, not is_misnamed(info), named.revision

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


def is_misnamed(info: CheckpointInfo) -> bool:
    """Whether a checkpoint of a directory was copied or renamed: it says that it is of another update than its name."""
    named = parse_name(info.name)
    return named is not None and (named.step, named.micro_step) != (info.step, info.micro_step)


def _identity(path: Path) -> _Identity:
    status = (path / INDEX_FILE).stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
