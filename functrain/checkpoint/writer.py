"""One checkpoint to disk, atomically."""

import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from functrain.checkpoint import arrays, bundles, files, orbax_io
from functrain.checkpoint.descriptors import for_saving, require_descriptors
from functrain.checkpoint.index import INDEX_FILE, Index, dump_index, with_checksums
from functrain.checkpoint.inventory import take_inventory
from functrain.checkpoint.snapshot import Snapshot

_INDEX_BYTES_PER_LEAF = 256  # roughly, with orbax's own metadata


def write_checkpoint(path: Path, index: Index, snapshot: Snapshot) -> Index:
    """Write a checkpoint next to `path` and rename it there when every byte is on the disk.

    Args:
        path: absolute; must not exist.
        index: what the caller says about the checkpoint; its groups are taken from the snapshot.
        snapshot: the tree.

    Returns:
        The index as it was written.
    """
    nbytes = sum(tensor.nbytes for tensor in snapshot.tensors.values())
    leaves = sum(len(group.leaves) for group in snapshot.groups.values())
    files.require_room(path.parent, nbytes + leaves * _INDEX_BYTES_PER_LEAF)
    require_descriptors(for_saving(len({group for group, _ in snapshot.tensors})))
    temporary = files.temporary_path(path.parent, path.name)
    groups = {name: bundles.assign(group) for name, group in snapshot.groups.items()}
    singles: dict[str, dict[str, orbax_io.Array]] = {name: {} for name in groups}
    for (group, leaf_path), tensor in snapshot.tensors.items():
        singles[group][leaf_path] = arrays.to_numpy(tensor)
    checksums = _Checksums(singles)
    items = {groups[name].item: bundles.pack(groups[name], found) for name, found in singles.items()}
    try:
        orbax_io.save_items(temporary, items)
        index = replace(index, groups=groups, files=take_inventory(temporary))
        index = with_checksums(index, checksums.result())
        (temporary / INDEX_FILE).write_bytes(dump_index(index))
        files.commit(temporary, path)
        return index
    except BaseException:
        with suppress(OSError):  # the space may be what is lacking; what stays behind is swept up later
            for leftover in path.parent.glob(temporary.name + "*"):
                shutil.rmtree(leftover)
        raise
    finally:
        checksums.join()


class _Checksums(threading.Thread):
    """CRC-32 of every array, taken while the disk is busy: one after the other they were a fifth of a save."""

    def __init__(self, singles: Mapping[str, Mapping[str, orbax_io.Array]]) -> None:
        super().__init__(name="functrain-checksums", daemon=False)
        self._singles = singles
        self._sums: dict[tuple[str, str], int] | None = None
        self.start()

    def run(self) -> None:
        """Called by the thread itself."""
        self._sums = {
            (group, path): arrays.crc32(array)
            for group, found in self._singles.items()
            for path, array in found.items()
        }

    def result(self) -> dict[tuple[str, str], int]:
        """Wait for them."""
        self.join()
        assert self._sums is not None, "the checksums' thread ended with an error, which it has printed"
        return self._sums
