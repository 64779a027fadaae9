"""What a save has to hold fast before it returns.

Imports torch, functrain.foundation and the neighbouring modules only.

Tensors on the CPU are kept by reference: a state is never written to, so a copy would only cost
time and as much memory again. Tensors on other devices are brought to the host, and `copy=True`
copies all, for states whose storage will be written to (donation).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from functrain.checkpoint import arrays, names, scalars
from functrain.checkpoint.grouping import full_path, split
from functrain.checkpoint.index import GroupRecord, LeafRecord
from functrain.foundation.trees import Tree

_PLAIN = (torch.Tensor, torch.nn.Parameter)


@dataclass(frozen=True)
class Snapshot:
    """A tree, ready for the writer.

    Args:
        groups: the index's records, the checksums of arrays still missing.
        tensors: by (group, path), the tensors to store, on the CPU.
    """

    groups: Mapping[str, GroupRecord]
    tensors: Mapping[tuple[str, str], torch.Tensor]


def take_snapshot(tree: Tree, *, copy: bool) -> Snapshot:
    """Describe a tree and take hold of its tensors.

    Args:
        tree: leaves are strided tensors and Python scalars.
        copy: whether tensors on the CPU are copied.

    Raises:
        TypeError: a leaf cannot be stored; the message names it.
    """
    grouped = split(tree)
    items = names.item_names(grouped.groups)
    groups: dict[str, GroupRecord] = {}
    tensors: dict[tuple[str, str], torch.Tensor] = {}
    owners: dict[Any, tuple[str, str]] = {}
    for group, leaves in grouped.groups.items():
        records: dict[str, LeafRecord] = {}
        for path, leaf in leaves.items():
            if not isinstance(leaf, torch.Tensor):
                records[path] = _scalar_record(group, path, leaf)
                continue
            record = _tensor_record(group, path, leaf)
            if record.kind == "array":
                owner = owners.setdefault(_identity(leaf), (group, path))
                if owner == (group, path):
                    tensors[owner] = _hold(leaf, copy)
                else:
                    record = LeafRecord(path, "alias", record.dtype, record.shape, record.stride, alias=owner)
            records[path] = record
        groups[group] = GroupRecord(group, items[group], records)
    return Snapshot(groups, tensors)


def _scalar_record(group: str, path: str, leaf: Any) -> LeafRecord:
    # Exact types: a subclass (IntEnum, np.float64) would come back as its base.
    if type(leaf) not in scalars.SCALAR_TYPES:
        raise TypeError(
            f"leaf {full_path(group, path)} is a {type(leaf).__name__}: a checkpoint holds tensors and "
            f"bool, int, float, str or None; convert it first (float(x), torch.from_numpy(x))"
        )
    return LeafRecord(path, "scalar", scalars.scalar_type(leaf), value=leaf)


def _tensor_record(group: str, path: str, tensor: torch.Tensor) -> LeafRecord:
    name = full_path(group, path)
    if type(tensor) not in _PLAIN:
        raise TypeError(f"leaf {name} is a {type(tensor).__name__}: a checkpoint holds plain tensors, convert it first")
    if tensor.device.type == "meta":
        raise TypeError(f"leaf {name} is a meta tensor, which has no values to save")
    dtype = arrays.dtype_name(tensor.dtype)
    if tensor.layout != torch.strided or dtype is None:
        raise TypeError(
            f"leaf {name} has layout {tensor.layout} and dtype {tensor.dtype}: "
            f"a checkpoint holds strided tensors of {', '.join(arrays.DTYPES)}"
        )
    if tensor.numel() == 0:
        return LeafRecord(path, "empty", dtype, tuple(tensor.shape))
    return LeafRecord(path, "array", dtype, tuple(tensor.shape), arrays.dense_stride(tensor))


def _identity(tensor: torch.Tensor) -> Any:
    """Equal for two tensors that are the same elements of the same memory, read the same way."""
    return (
        tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()),
        tensor.is_conj(), tensor.is_neg(),
    )  # fmt: skip


def _hold(tensor: torch.Tensor, copy: bool) -> torch.Tensor:
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        return tensor.to("cpu")
    return tensor.clone() if copy else tensor
