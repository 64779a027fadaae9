"""Do all processes see the directory that they are to write to together?"""

import uuid
from contextlib import suppress
from pathlib import Path

from functrain.checkpoint.names import TEMPORARY_PREFIX
from functrain.checkpoint.together import Peers, agreed


def without_sight_of(directory: Path, peers: Peers) -> list[int]:
    """The processes that do not see a file that process 0 writes there, or above it where it does not exist yet.

    One that was given another directory counts, too.

    Args:
        directory: absolute. All processes must ask.
        peers: the processes.
    """
    file: Path | None = None
    if peers.rank == 0:
        folder = next(each for each in (directory, *directory.parents) if each.is_dir())
        file = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}"
        try:
            file.touch()
        except OSError:
            file = None  # whatever is to be written there will say why
    try:
        where, told = agreed(peers, (directory, file))[0]
        seen = agreed(peers, where == directory and told is not None and told.is_file())
    finally:
        if file is not None:
            with suppress(OSError):
                file.unlink()
    return [rank for rank, sees in enumerate(seen) if not sees]
