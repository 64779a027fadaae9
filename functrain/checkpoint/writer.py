"""One checkpoint to disk, atomically. Imports the neighbouring modules only."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from functrain.checkpoint import arrays, bundles, files, orbax_io
from functrain.checkpoint.index import INDEX_FILE, Index, dump_index, with_checksums
from functrain.checkpoint.inventory import take_inventory
from functrain.checkpoint.snapshot import Snapshot

_INDEX_BYTES_PER_LEAF = 256  # roughly, with orbax's own metadata


def write_checkpoint(path: Path, index: Index, snapshot: Snapshot) -> None:
    """Write a checkpoint next to `path` and rename it there when every byte is on the disk.

    Args:
        path: absolute; must not exist.
        index: what the caller says about the checkpoint; its groups are taken from the snapshot.
        snapshot: the tree.
    """
    nbytes = sum(tensor.nbytes for tensor in snapshot.tensors.values())
    leaves = sum(len(group.leaves) for group in snapshot.groups.values())
    files.require_room(path.parent, nbytes + leaves * _INDEX_BYTES_PER_LEAF)
    temporary = files.temporary_path(path.parent, path.name)
    groups = {name: bundles.assign(group) for name, group in snapshot.groups.items()}
    singles: dict[str, dict[str, orbax_io.Array]] = {name: {} for name in groups}
    checksums: dict[tuple[str, str], int] = {}
    for (group, leaf_path), tensor in snapshot.tensors.items():
        array = arrays.to_numpy(tensor)
        checksums[group, leaf_path] = arrays.crc32(array)
        singles[group][leaf_path] = array
    items = {groups[name].item: bundles.pack(groups[name], found) for name, found in singles.items()}
    try:
        orbax_io.save_items(temporary, items)
        index = replace(index, groups=groups, files=take_inventory(temporary))
        (temporary / INDEX_FILE).write_bytes(dump_index(with_checksums(index, checksums)))
        files.commit(temporary, path)
    except BaseException:
        with suppress(OSError):  # the space may be what is lacking; what stays behind is swept up later
            for leftover in path.parent.glob(temporary.name + "*"):
                shutil.rmtree(leftover)
        raise
