"""The saves of a process other than the first: it writes its rows of the state, and hears how each save ended."""

import os
import shutil
import warnings
from functools import partial
from types import TracebackType
from typing import Self

from functrain.checkpoint.background import BackgroundSave
from functrain.checkpoint.errors import CheckpointWarning
from functrain.checkpoint.snapshot import Held, hold
from functrain.checkpoint.staging import Staging
from functrain.checkpoint.together import Peers, Place, followed
from functrain.checkpoint.writer import folder_of_rank, write_own_rows
from functrain.foundation.errors import CheckpointError
from functrain.foundation.paths import absolute
from functrain.foundation.trees import Tree


class PieceWriter:
    """Writes this process's rows into the checkpoints that a `Checkpointer` of process 0 saves.

    Args:
        directory: the `Checkpointer`'s.
        peers: the processes.
        copy: as of `Checkpointer.save`.
    """

    def __init__(self, directory: str | os.PathLike[str], peers: Peers, *, copy: bool = False) -> None:
        self.directory = absolute(directory)
        self._peers = peers
        self._save: BackgroundSave | None = None
        self._copy = copy
        self._staging = Staging()

    def save(self, tree: Tree) -> None:
        """Write this process's rows in the background, in a save that all processes begin. Waits for the save before.

        How the save before ended was process 0's to say.

        Args:
            tree: with a `Piece` for each tensor that is kept in rows; what else is in it process 0 writes.
        """
        if self._save is not None:
            self._save.join()
            self._save.take_error()
        held = hold(tree, staging=self._staging if self._copy else None, pieces_only=True)
        description = f"this process's part of a checkpoint in {self.directory}"
        self._save = BackgroundSave(partial(self._follow, held), description)

    def wait(self) -> None:
        """Wait for the save in flight.

        Raises:
            CheckpointError: it failed on some process; the message names it. An error is raised once.
        """
        if self._save is not None:
            self._save.join()
            finished, self._save = self._save, None
            error = finished.take_error()
            if error is not None:
                raise error

    def _follow(self, held: Held) -> None:
        """Runs in the writer's thread."""
        snapshot, names = held.describe(), []

        def write(name: str) -> dict[Place, int]:
            names.append(name)
            return write_own_rows(self.directory, name, snapshot, self._peers.rank)

        try:
            followed(self._peers, write)
        except CheckpointError as error:
            raise CheckpointError(f"could not save a checkpoint in {self.directory}: {error}") from error
        finally:
            for name in names:
                shutil.rmtree(folder_of_rank(self.directory, name, self._peers.rank), ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except CheckpointError as failure:
            if error is None:
                raise
            # The exception that is passing is the one the user must see.
            warnings.warn(str(failure), CheckpointWarning, stacklevel=2)
        finally:
            self._staging.release()
