"""Are all checkpoints of a directory whole? Reads everything, changes nothing."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from functrain.checkpoint import files
from functrain.checkpoint.catalogue import Catalogue
from functrain.checkpoint.errors import DamagedCheckpointError
from functrain.checkpoint.info import CheckpointInfo
from functrain.checkpoint.reader import verify_checkpoint
from functrain.checkpoint.uninterrupted import uninterrupted
from functrain.foundation.errors import CheckpointError


@dataclass(frozen=True)
class CheckpointVerdict:
    """What was found of one checkpoint.

    Attributes:
        name: of its directory.
        status: "good"; "damaged": bytes are missing or not those that were written; "unreadable": it could not
            be judged. A newer functrain may have written it, or it may not be read.
        reason: why it is not good, else "".
        info: what a good one says about itself, else None.
    """

    name: str
    status: Literal["good", "damaged", "unreadable"]
    reason: str = ""
    info: CheckpointInfo | None = None


@dataclass(frozen=True)
class VerifyReport:
    """What was found of a directory's checkpoints.

    Attributes:
        directory: that was looked at.
        checkpoints: a verdict for each, oldest first.
        set_aside: names of those that were found damaged earlier and renamed; they are not looked at again.
    """

    directory: Path
    checkpoints: tuple[CheckpointVerdict, ...]
    set_aside: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every checkpoint is good. Those set aside do not count: no run will use them."""
        return all(verdict.status == "good" for verdict in self.checkpoints)

    @property
    def newest_good(self) -> str | None:
        """The name of the checkpoint that a resumed run would use, if there is one."""
        return next((v.name for v in reversed(self.checkpoints) if v.status == "good"), None)


def verify_checkpoints(directory: str | os.PathLike[str]) -> VerifyReport:
    """Read every array of every checkpoint and compare it with its checksum.

    A run may be writing to the directory meanwhile: a checkpoint that it deletes is left out.

    Args:
        directory: that holds the checkpoints, such as a run's "checkpoints".

    Raises:
        CheckpointError: there is no such directory, or it cannot be listed.

    Example:
        >>> import tempfile, torch
        >>> from functrain.checkpoint import Checkpointer
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with Checkpointer(directory) as checkpointer:
        ...         checkpointer.save({"params": {"w": torch.ones(2)}}, step=4)
        ...     report = verify_checkpoints(directory)
        >>> report.ok, report.newest_good
        (True, 'step-00000004')
    """
    directory = Path(os.path.abspath(directory))
    if not directory.is_dir():
        raise CheckpointError(f"there is no directory {directory}: give the one that holds the checkpoints")
    try:
        paths, set_aside = uninterrupted(partial(_listed, directory))
    except OSError as error:
        raise CheckpointError(f"cannot list {directory}: {error}") from error
    verdicts = [_verdict(path) for path in paths]
    return VerifyReport(
        directory,
        tuple(v for v in verdicts if v.status == "good" or (directory / v.name).exists()),
        tuple(path.name for path in set_aside),
    )


def _listed(directory: Path) -> tuple[list[Path], list[Path]]:
    return Catalogue(directory).in_order(), files.list_set_aside(directory)


def _verdict(path: Path) -> CheckpointVerdict:
    try:
        return CheckpointVerdict(path.name, "good", info=verify_checkpoint(path))
    except DamagedCheckpointError as error:
        return CheckpointVerdict(path.name, "damaged", error.reason)
    except CheckpointError as error:
        return CheckpointVerdict(path.name, "unreadable", str(error))
