"""What a save has to hold fast before it returns.

Tensors on the CPU are kept by reference: a state is never written to, so a copy would only cost
time and as much memory again. Tensors on other devices are brought to the host, and for states whose
storage will be written to (donation) all are copied.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from functrain.checkpoint import arrays, names, scalars
from functrain.checkpoint.grouping import LeafNames, flatten, full_path, leaf_names
from functrain.checkpoint.index import GroupRecord, LeafRecord
from functrain.checkpoint.staging import Staging
from functrain.foundation.pieces import Piece
from functrain.foundation.trees import Tree

_PLAIN = (torch.Tensor, torch.nn.Parameter)


@dataclass(frozen=True)
class Snapshot:
    """A tree, ready for the writer.

    Args:
        groups: the index's records, the checksums of arrays still missing.
        tensors: by (group, path), the tensors to store, on the CPU.
        pieces: likewise, those of which this process has its rows.
    """

    groups: Mapping[str, GroupRecord]
    tensors: Mapping[tuple[str, str], torch.Tensor]
    pieces: Mapping[tuple[str, str], Piece] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """A tree that later changes cannot reach any more.

    Args:
        leaf_names: its names.
        leaves: its scalars, its tensors and pieces of some, on the CPU; tied tensors are one object, or the same
            memory.
    """

    leaf_names: LeafNames
    leaves: Sequence[Any]

    def describe(self) -> Snapshot:
        """The records and tensors by name; in the writer's thread, for it takes 5 us a leaf."""
        # Two tensors can only be tied if they begin at the same place, and asking for that alone is quick.
        users = Counter([leaf.data_ptr() for leaf in self.leaves if isinstance(leaf, torch.Tensor)])
        items = names.item_names(self.leaf_names.groups)
        records: dict[str, dict[str, LeafRecord]] = {name: {} for name in self.leaf_names.groups}
        tensors: dict[tuple[str, str], torch.Tensor] = {}
        pieces: dict[tuple[str, str], Piece] = {}
        owners: dict[Any, tuple[str, str]] = {}
        for place, leaf in zip(self.leaf_names.places, self.leaves, strict=True):
            group, path = place
            if isinstance(leaf, Piece):
                pieces[place], records[group][path] = leaf, _piece_record(path, leaf)
                continue
            if not isinstance(leaf, torch.Tensor):
                records[group][path] = LeafRecord(path, "scalar", scalars.scalar_type(leaf), value=leaf)
                continue
            record = _tensor_record(path, leaf)
            if record.kind == "array":
                owner = place if users[leaf.data_ptr()] == 1 else owners.setdefault(_identity(leaf), place)
                if owner == place:
                    tensors[place] = leaf
                else:
                    record = LeafRecord(path, "alias", record.dtype, record.shape, record.stride, alias=owner)
            records[group][path] = record
        groups = {name: GroupRecord(name, items[name], found) for name, found in records.items()}
        return Snapshot(groups, tensors, pieces)


def hold(
    tree: Tree, *, staging: Staging | None = None, known: LeafNames | None = None, pieces_only: bool = False
) -> Held:
    """Take hold of a tree's leaves, all that a save must do before it returns.

    Args:
        tree: leaves are strided tensors, pieces of such, and Python scalars.
        staging: where tensors on the CPU are copied to; None: they are kept by reference.
        known: of the save before, which is likely the same.
        pieces_only: the other leaves are replaced by None, for a process that writes its pieces alone.

    Raises:
        TypeError: a leaf cannot be stored; the message names it.
        ValueError: two keys read the same.
    """
    leaves, spec = flatten(tree)
    named = known if known is not None and known.spec == spec else leaf_names(spec)
    if pieces_only:
        leaves = [leaf if isinstance(leaf, Piece) else None for leaf in leaves]
    for place, leaf in zip(named.places, leaves, strict=True):
        if not _is_storable(leaf.rows if isinstance(leaf, Piece) else leaf):
            raise TypeError(_refusal(full_path(*place), leaf))
    rows = [leaf.rows if isinstance(leaf, Piece) else leaf for leaf in leaves]
    copies = _copied(rows, staging)
    return Held(
        named, [leaf.with_rows(copy) if isinstance(leaf, Piece) else copy for leaf, copy in zip(leaves, copies)]
    )


@torch.no_grad()
def _copied(leaves: list[Any], staging: Staging | None) -> list[Any]:
    """The leaves on the CPU, those that were there copied if `staging` is given; tied tensors stay tied."""
    moving = [
        number
        for number, leaf in enumerate(leaves)
        if type(leaf) in _PLAIN and (staging is not None or not leaf.is_cpu)
    ]
    users = Counter([leaves[number].data_ptr() for number in moving])  # see Held.describe
    owners = {
        number: number if users[leaves[number].data_ptr()] == 1 else _identity(leaves[number]) for number in moving
    }
    firsts = {owner: number for number, owner in reversed(owners.items())}
    here = [number for number in firsts.values() if leaves[number].is_cpu]
    copies = {number: leaves[number].to("cpu") for number in firsts.values() if not leaves[number].is_cpu}
    if staging is not None:
        copies.update(zip(here, staging.copy([leaves[number] for number in here]), strict=True))
    held = list(leaves)
    for number, owner in owners.items():
        held[number] = copies[firsts[owner]]
    return held


def _is_storable(leaf: Any) -> bool:
    # Exact types: a subclass (IntEnum, np.float64) would come back as its base.
    if type(leaf) not in _PLAIN:
        return type(leaf) in scalars.SCALAR_TYPES
    plain = leaf.layout is torch.strided and arrays.dtype_name(leaf.dtype) is not None
    return plain and not leaf.is_meta


def _refusal(name: str, leaf: Any) -> str:
    if not isinstance(leaf, torch.Tensor):
        return (
            f"leaf {name} is a {type(leaf).__name__}: a checkpoint holds tensors and bool, int, float, str or None; "
            "convert it first (float(x), torch.from_numpy(x))"
        )
    if type(leaf) not in _PLAIN:
        return f"leaf {name} is a {type(leaf).__name__}: a checkpoint holds plain tensors, convert it first"
    if leaf.is_meta:
        return f"leaf {name} is a meta tensor, which has no values to save"
    return (
        f"leaf {name} has layout {leaf.layout} and dtype {leaf.dtype}: a checkpoint holds strided tensors of "
        f"{', '.join(arrays.DTYPES)}"
    )


def _tensor_record(path: str, tensor: torch.Tensor) -> LeafRecord:
    dtype = arrays.dtype_name(tensor.dtype)
    assert dtype is not None
    if tensor.numel() == 0:
        return LeafRecord(path, "empty", dtype, tuple(tensor.shape))
    return LeafRecord(path, "array", dtype, tuple(tensor.shape), arrays.dense_stride(tensor))


def _piece_record(path: str, piece: Piece) -> LeafRecord:
    dtype = arrays.dtype_name(piece.dtype)
    assert dtype is not None
    return LeafRecord(path, "array", dtype, piece.shape, pieces=(len(piece.rows), ()))


def _identity(tensor: torch.Tensor) -> Any:
    """Equal for two tensors that are the same elements of the same memory, read the same way."""
    return (
        tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()),
        tensor.is_conj(), tensor.is_neg(),
    )  # fmt: skip
