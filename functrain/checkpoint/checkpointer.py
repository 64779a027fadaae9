"""Checkpoints of a run: saved in the background, kept by age and metric, restored with fallback.

orbax and jax load with the first save or restore.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from functrain.checkpoint import files, orbax_io
from functrain.checkpoint.background import BackgroundSave
from functrain.checkpoint.catalogue import Catalogue, is_misnamed
from functrain.checkpoint.errors import CheckpointWarning, DamagedCheckpointError, describe
from functrain.checkpoint.grouping import LeafNames
from functrain.checkpoint.index import INDEX_FILE, Index, make_index
from functrain.checkpoint.info import CheckpointInfo
from functrain.checkpoint.names import Position
from functrain.checkpoint.reader import Restored, read_checkpoint
from functrain.checkpoint.retention import Mode, rank_by_metric, retained
from functrain.checkpoint.snapshot import Held, hold
from functrain.checkpoint.staging import Staging
from functrain.checkpoint.together import Peers, led, told_by_first
from functrain.checkpoint.writer import write_checkpoint
from functrain.foundation.errors import CheckpointError
from functrain.foundation.numbers import is_integer
from functrain.foundation.paths import absolute
from functrain.foundation.trees import Tree

_Answer = TypeVar("_Answer")


class Checkpointer:
    """The checkpoints in a directory. One process writes; any number may read.

    A checkpoint is a directory `step-00000120` (`.m2` added for two micro-batches past the update,
    `.r1` for the second checkpoint at the same place). It appears by one rename when it is complete.
    The symlinks `last` and `best` are there for people; nothing relies on them.

    Args:
        directory: made when the first checkpoint is saved.
        keep: how many of the newest checkpoints are kept.
        keep_best: how many of the best ones are kept besides, the rules of `functrain.checkpoint.retention`
            applying: of equal metrics the earlier is the better, NaN and none are never among the best.
        mode: whether a smaller ("min") or a larger ("max") metric is better.
        read_only: never change the directory: for tools, and for all ranks but one.
        peers: processes that save together, each of which writes its rows of the tree's pieces: this is the first of
            them, and the others have a `PieceWriter`. All of them restore together, each with a `Checkpointer`.

    Attributes:
        peers: as given.
        on_saved: called with each checkpoint that is on disk, in the thread that wrote it.

    Raises:
        ValueError: `keep`, `keep_best` or `mode` is not allowed.

    Example:
        >>> import tempfile, torch
        >>> directory = tempfile.TemporaryDirectory()
        >>> state = {"params": {"w": torch.arange(3.0)}, "step": 7}
        >>> with Checkpointer(directory.name) as checkpointer:
        ...     checkpointer.save(state, step=7, metric=0.25)
        ...     tree, info = checkpointer.restore(like=state)
        >>> tree, info.name, info.metric
        ({'params': {'w': tensor([0., 1., 2.])}, 'step': 7}, 'step-00000007', 0.25)
        >>> directory.cleanup()
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 3,
        keep_best: int = 1,
        mode: Mode = "min",
        read_only: bool = False,
        peers: Peers | None = None,
    ) -> None:
        for name, value in (("keep", keep), ("keep_best", keep_best)):
            if not is_integer(value, 1):
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        self.directory = absolute(directory)  # a later chdir must not move it
        self._keep = keep
        self._keep_best = keep_best
        self._mode: Mode = mode
        self._read_only = read_only
        self.peers = peers
        self._catalogue = Catalogue(self.directory)
        self._save: BackgroundSave | None = None
        self._leaf_names: LeafNames | None = None
        self._staging = Staging()
        self._swept = False
        self._closed = False
        self.on_saved: Callable[[CheckpointInfo], None] | None = None

    def save(
        self,
        tree: Tree,
        *,
        step: int,
        micro_step: int = 0,
        status: str = "COMPLETE",
        metric: float | None = None,
        metadata: Mapping[str, Any] = {},
        copy: bool = False,
    ) -> None:
        """Save a tree in the background. Waits for the save in flight, if there is one.

        Args:
            tree: a `@node` dataclass or dictionary of tensors and Python scalars.
            step: optimizer updates done.
            micro_step: micro-batches done since.
            status: a word for what the checkpoint is, such as "INTERRUPTED".
            metric: the watched metric; NaN is never the best.
            metadata: anything that JSON can hold.
            copy: whether tensors on the CPU are copied before this returns. Needed if their memory
                will be written to while the save is in flight. The copies' memory is kept until `close`.

        Raises:
            TypeError: a leaf or the metadata cannot be stored.
            ValueError: `step` or `micro_step` is not a natural number.
            CheckpointError: the *previous* save failed (this one was not begun: call again to try),
                or the checkpointer is closed or read-only.
        """
        if self._closed or self._read_only:
            reason = "closed" if self._closed else "read_only"
            raise CheckpointError(f"cannot save to {self.directory}: this Checkpointer is {reason}")
        index = make_index(step, micro_step, status, metric, metadata)
        orbax_io.import_orbax()  # not in the writer's thread: what is imported there may draw random numbers
        self.wait()
        held = hold(tree, staging=self._staging if copy else None, known=self._leaf_names)
        self._leaf_names = held.leaf_names
        where = self.directory / Position(step, micro_step).name
        self._save = BackgroundSave(partial(self._write, index, held), f"checkpoint {where}")

    def wait(self) -> None:
        """Wait for the save in flight.

        Raises:
            CheckpointError: it failed. An error is raised once.
        """
        if self._save is not None:
            self._save.join()
            finished, self._save = self._save, None
            error = finished.take_error()
            if error is not None:
                raise error

    def close(self) -> None:
        """Wait for the save in flight and refuse further ones; restoring stays possible.

        Raises:
            CheckpointError: the save failed.
        """
        self._closed = True
        try:
            self.wait()
        finally:
            self._staging.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except CheckpointError as failure:
            if error is None:
                raise
            # The exception that is passing is the one the user must see.
            warnings.warn(str(failure), CheckpointWarning, stacklevel=2)

    def names(self) -> list[str]:
        """The names of the checkpoints, oldest first, damaged or not."""
        return [path.name for path in self._catalogue.in_order()]

    def infos(self) -> list[CheckpointInfo]:
        """The checkpoints, oldest first: by step, micro-step and revision, whatever name a copy was given.

        Those that are incomplete or whose index is damaged are left out.
        """
        return self._catalogue.read()[0]

    def restore(
        self, like: Tree, which: str | os.PathLike[str] = "last", *, groups: Iterable[str] | None = None
    ) -> Restored:
        """Read a checkpoint into the structure of `like`. Waits for the save in flight.

        Args:
            like: tree of the saved structure, see `read_checkpoint`.
            which: "last", "best", a checkpoint's name or a path. "last" and "best" pass over damaged
                checkpoints with a `CheckpointWarning`; those are renamed to `<name>.damaged` once
                another is found good.
            groups: the top-level children to read, all by default; the others stay as they are in `like`.

        Returns:
            `Restored(tree, info)`.

        Raises:
            CheckpointError: there is no such checkpoint, it does not fit `like`, or none is undamaged.
        """
        if self._save is not None:
            self._save.join()
        orbax_io.import_orbax()  # not in the reader's thread: it would wait for a deterministic run, which waits for it
        groups = [groups] if isinstance(groups, str) else groups if groups is None else list(groups)
        if which not in ("last", "best"):
            where = self._as_first_says(partial(self.locate, which))
            return read_checkpoint(where, like, groups=groups, peers=self.peers)
        damaged: list[DamagedCheckpointError] = []

        def candidates() -> list[Path]:
            paths, known = self._candidates(str(which))
            damaged.extend(known)
            return paths

        for path in self._as_first_says(candidates):
            try:
                restored = read_checkpoint(path, like, groups=groups, peers=self.peers)
            except DamagedCheckpointError as error:
                damaged.append(error)
            else:
                self._set_aside(damaged, path.name)
                return restored
        reasons = "".join(f"\n  {error.path.name}: {error.reason}" for error in damaged)
        raise CheckpointError(f"no checkpoint in {self.directory} is undamaged:{reasons}")

    def _as_first_says(self, ask: Callable[[], _Answer]) -> _Answer:
        """What process 0 finds, so that all look at the same checkpoints."""
        return ask() if self.peers is None else told_by_first(self.peers, ask)

    def _write(self, index: Index, held: Held) -> None:
        """Runs in the writer's thread."""
        try:
            with led(self.peers) as leading:
                files.make_directory(self.directory)
                self._sweep_once()
                path = self.directory / files.next_name(self.directory, index.step, index.micro_step)
                self._catalogue.remember(path, write_checkpoint(path, index, held.describe(), leading))
        except Exception as error:
            where = self.directory / Position(index.step, index.micro_step).name
            newest = "there is none there"
            with suppress(OSError):  # whatever is wrong with the directory, the first error is the one to tell
                if there := self.names():
                    newest = f"the newest there is {there[-1]}"
            reason = str(error) if isinstance(error, CheckpointError) else describe(error)
            raise CheckpointError(f"could not save checkpoint {where}: {reason}; {newest}") from error
        try:
            infos = self.infos()
            # A run that went back to an older checkpoint saves below the newest: that one stays, too.
            own = [info for info in infos if not is_misnamed(info)]
            kept = retained(own, self._keep, self._mode, self._keep_best) | {path.name}
            kept |= {info.name for info in infos if is_misnamed(info)}  # somebody else put them there
            self._refresh_links([info for info in infos if info.name in kept])  # before what they name is deleted
            for info in infos:
                if info.name not in kept:
                    files.delete(info.path)
        except OSError as error:
            raise CheckpointError(f"saved {path}, but could not remove older checkpoints: {error}") from error
        if self.on_saved is not None:
            self.on_saved(next(info for info in infos if info.path == path))

    def tidy(self) -> None:
        """Finish what a killed writer left undone: remove temporary files, and correct the links `last` and `best`.

        For the one writer of the directory only. Does nothing to a directory that is in order.
        """
        self._sweep_once()
        self._refresh_links(self.infos())

    def _sweep_once(self) -> None:
        if not self._swept:
            files.sweep(self.directory)
            self._swept = True

    def _refresh_links(self, infos: list[CheckpointInfo]) -> None:
        files.point_link(self.directory / "last", infos[-1].path if infos else None)
        ranked = rank_by_metric(infos, self._mode)
        files.point_link(self.directory / "best", ranked[0].path if ranked else None)

    def _candidates(self, which: str) -> tuple[list[Path], list[DamagedCheckpointError]]:
        """Checkpoints to try in turn, and those known to be damaged already."""
        paths = self._catalogue.in_order()
        if not paths:
            inside = self.directory / "checkpoints"
            hint = f"; it is the directory of a run, with its checkpoints in {inside}" if inside.is_dir() else ""
            raise CheckpointError(f"there is no checkpoint in {self.directory}{hint}")
        if which == "last":
            self._warn_of_misnamed()
            return paths[::-1], []
        infos, failures = self._catalogue.read()
        damaged = [error for error in failures if isinstance(error, DamagedCheckpointError)]
        if other := next((error for error in failures if error not in damaged), None):
            raise other  # such as a newer functrain's: it may be the best one
        ranked = [info.path for info in rank_by_metric(infos, self._mode)]
        if infos and not ranked:
            raise CheckpointError(
                f"none of the {len(infos)} checkpoints in {self.directory} was saved with a metric, "
                f"so none is the best: restore 'last' or a name"
            )
        return ranked, damaged

    def _warn_of_misnamed(self) -> None:
        for info in filter(is_misnamed, self.infos()):
            right = Position(info.step, info.micro_step).name
            warnings.warn(
                f"checkpoint {info.path} was saved as {right}, and copied or renamed since: it counts as {right}",
                CheckpointWarning,
                stacklevel=4,
            )

    def locate(self, which: str | os.PathLike[str]) -> Path:
        """The directory of a checkpoint: by its name, by its path, or, of a run's directory, its last one.

        Raises:
            CheckpointError: there is none.
        """
        if not os.fspath(which):
            raise CheckpointError("a checkpoint's name or path must not be empty; give 'last', 'best' or a name")
        inside = self.directory / which
        path = inside if inside.is_dir() else Path(which)
        if not (path / INDEX_FILE).exists():
            names = Checkpointer(path / "checkpoints", read_only=True).names()
            if names:
                return path / "checkpoints" / names[-1]
        if not path.is_dir():
            available = ", ".join(self.names())
            known = f"those there are {available}" if available else "there is none there"
            raise CheckpointError(
                f"there is no checkpoint {os.fspath(which)!r}: it is neither one in {self.directory} ({known}) "
                "nor the path of another"
            )
        return path

    def _set_aside(self, damaged: list[DamagedCheckpointError], used: str) -> None:
        if self.peers is not None and self.peers.rank:
            return  # the first one says it
        for error in damaged:
            fate = "it was left where it is"
            if not self._read_only:
                try:
                    fate = f"it was renamed to {files.set_aside(error.path).name}"
                except OSError as failure:
                    fate = f"it could not be renamed ({failure})"
            warnings.warn(f"{error}; {fate} and {used} is used instead", CheckpointWarning, stacklevel=3)
        if damaged and not self._read_only:
            self._refresh_links(self.infos())
