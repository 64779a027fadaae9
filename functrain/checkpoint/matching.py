"""Does a checkpoint fit the state at hand? Decided from the index, before any array is read."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from functrain.checkpoint.arrays import DTYPES
from functrain.checkpoint.errors import MismatchError
from functrain.checkpoint.grouping import full_path
from functrain.checkpoint.index import Index, LeafRecord
from functrain.foundation.pieces import Piece

_SHOWN = 10


def check_fit(
    path: Path,
    index: Index,
    like: Mapping[str, Mapping[str, Any]],
    added: Collection[tuple[str, str]] = (),
    left_out: tuple[str, ...] = (),
) -> None:
    """Compare a checkpoint with the groups of leaves that it is to be restored into.

    `None` holds no data: it fits a scalar, and a leaf that the other side does not have. Leaves that are `added` (group
    and path) may be missing; names in the checkpoint that begin as in `left_out` may be missing in the state.

    Raises:
        MismatchError: leaves are missing or unexpected, or shapes or dtypes differ.
    """
    problems = [
        problem for group, leaves in like.items() for problem in _group_problems(index, group, leaves, added, left_out)
    ]
    if not problems:
        return
    shown = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
    more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    raise MismatchError(
        f"checkpoint {path} does not fit the state it is to be restored into:{shown}{more}\n"
        f"This checkpoint belongs to another model or optimizer: build the state as it was built when the "
        f"checkpoint was saved, or restore only what fits, as in groups=('params',).",
        problems,
    )


def _group_problems(
    index: Index,
    group: str,
    like: Mapping[str, Any],
    added: Collection[tuple[str, str]],
    left_out: tuple[str, ...],
) -> Iterator[str]:
    saved = index.groups[group].leaves if group in index.groups else {}
    for path, leaf in like.items():
        name = full_path(group, path)
        record = saved.get(path)
        if record is None:
            if leaf is not None and (group, path) not in added:
                yield f"{name}: not in the checkpoint, {_describe_leaf(leaf)} in the state"
        elif not _fits(record, leaf):
            yield f"{name}: {_describe_record(record)} in the checkpoint, {_describe_leaf(leaf)} in the state"
    for path, record in saved.items():
        if path not in like and record.dtype != "None" and not full_path(group, path).startswith(left_out):
            yield f"{full_path(group, path)}: {_describe_record(record)} in the checkpoint, not in the state"


def _fits(record: LeafRecord, leaf: Any) -> bool:
    if isinstance(leaf, (torch.Tensor, Piece)):
        return record.kind != "scalar" and (DTYPES[record.dtype], record.shape) == (
            leaf.dtype,
            tuple(leaf.shape),
        )
    if record.kind != "scalar":
        return False
    # A learning rate may be 1 in one state and 0.5 in another, and a best value None at first.
    return leaf is None or record.value is None or isinstance(leaf, str) == isinstance(record.value, str)


def _describe_record(record: LeafRecord) -> str:
    return record.dtype if record.kind == "scalar" else f"{record.dtype} {record.shape}"


def _describe_leaf(leaf: Any) -> str:
    if isinstance(leaf, (torch.Tensor, Piece)):
        return f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)}"
    return "None" if leaf is None else type(leaf).__name__
