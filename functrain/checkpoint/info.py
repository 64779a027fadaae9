"""What a checkpoint says about itself."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from functrain.checkpoint.index import Index, load_index
from functrain.checkpoint.uninterrupted import uninterrupted
from functrain.foundation.errors import CheckpointError


class LeafInfo(NamedTuple):
    """Shape and dtype of a saved leaf; a scalar has shape () and the name of its Python type."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint without its arrays.

    Args:
        path: its directory.
        name: the directory's name, such as "step-00000120".
        step: optimizer updates done.
        micro_step: micro-batches done since.
        status: "COMPLETE", "INTERRUPTED" or what else the caller of `save` said.
        metric: the watched metric, if there was one.
        metadata: what the caller of `save` added.
        time: when it was taken, ISO 8601 in UTC.
        groups: for each top-level child of the tree, its leaves by path.
        nbytes: for each group, the bytes of its arrays on disk; a tied tensor counts where it is stored.
        format_version: of the layout on disk.
    """

    path: Path
    name: str
    step: int
    micro_step: int
    status: str
    metric: float | None
    metadata: Mapping[str, Any]
    time: str
    groups: Mapping[str, Mapping[str, LeafInfo]]
    nbytes: Mapping[str, int]
    format_version: int


def read_info(path: str | os.PathLike[str]) -> CheckpointInfo:
    """Read what a checkpoint says about itself; no array is read.

    Args:
        path: a checkpoint's directory.

    Raises:
        DamagedCheckpointError: its index is missing or damaged.
        CheckpointError: there is no such directory, or a newer functrain wrote it.

    Example:
        >>> import tempfile, torch
        >>> from functrain.checkpoint import Checkpointer
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with Checkpointer(directory) as checkpointer:
        ...         checkpointer.save({"params": {"w": torch.ones(2, 3)}}, step=4, metric=0.5)
        ...     info = read_info(f"{directory}/step-00000004")
        >>> info.step, info.metric, info.groups
        (4, 0.5, {'params': {'w': LeafInfo(shape=(2, 3), dtype='float32')}})
    """
    return uninterrupted(partial(_read, path))


def _read(path: str | os.PathLike[str]) -> CheckpointInfo:
    directory = checkpoint_directory(path)
    return make_info(directory, load_index(directory))


def make_info(directory: Path, index: Index) -> CheckpointInfo:
    """The public view of an index."""
    return CheckpointInfo(
        path=directory,
        name=directory.name,
        step=index.step,
        micro_step=index.micro_step,
        status=index.status,
        metric=index.metric,
        metadata=index.metadata,
        time=index.time,
        groups={
            g.name: {path: LeafInfo(leaf.shape, leaf.dtype) for path, leaf in g.leaves.items()}
            for g in index.groups.values()
        },
        nbytes={g.name: sum(leaf.stored_nbytes for leaf in g.leaves.values()) for g in index.groups.values()},
        format_version=index.format_version,
    )


def checkpoint_directory(path: str | os.PathLike[str]) -> Path:
    """The real directory behind a path: links such as `last` are followed.

    Raises:
        CheckpointError: there is no such directory.
    """
    directory = Path(os.path.realpath(path))
    if not directory.is_dir():
        raise CheckpointError(f"there is no checkpoint at {path}: it is not a directory")
    return directory
