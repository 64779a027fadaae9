"""One checkpoint to disk, atomically: by one process, or by several that each write their rows."""

import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from functrain.checkpoint import arrays, bundles, checksums, files, orbax_io, row_store
from functrain.checkpoint.descriptors import for_saving, require_descriptors
from functrain.checkpoint.index import INDEX_FILE, Index, dump_index, with_checksums
from functrain.checkpoint.inventory import take_inventory
from functrain.checkpoint.snapshot import Snapshot
from functrain.checkpoint.together import Leading, Place

_INDEX_BYTES_PER_LEAF = 256  # roughly, with orbax's own metadata


def write_checkpoint(path: Path, index: Index, snapshot: Snapshot, leading: Leading | None = None) -> Index:
    """Write a checkpoint next to `path` and rename it there when every byte is on the disk.

    Args:
        path: absolute; must not exist.
        index: what the caller says about the checkpoint; its groups are taken from the snapshot.
        snapshot: the tree.
        leading: the processes that write the rows of the snapshot's pieces, of which this is the first.

    Returns:
        The index as it was written.
    """
    nbytes = sum(tensor.nbytes for tensor in snapshot.tensors.values()) + _nbytes_of_rows(snapshot)
    leaves = sum(len(group.leaves) for group in snapshot.groups.values())
    files.require_room(path.parent, nbytes + leaves * _INDEX_BYTES_PER_LEAF)
    require_descriptors(for_saving(len({group for group, _ in [*snapshot.tensors, *snapshot.pieces]})))
    temporary = files.temporary_path(path.parent, path.name)
    if leading is not None:
        leading.begin(temporary)
    groups = {name: bundles.assign(group) for name, group in snapshot.groups.items()}
    singles: dict[str, dict[str, orbax_io.Array]] = {name: {} for name in groups}
    for (group, leaf_path), tensor in snapshot.tensors.items():
        singles[group][leaf_path] = arrays.to_numpy(tensor)
    rows = rows_to_write(snapshot)
    sums = Checksums({(g, p): array for g, found in singles.items() for p, array in found.items()} | own_rows(snapshot))
    items = {groups[name].item: bundles.pack(groups[name], found) for name, found in singles.items()}
    for item, found in rows.items():
        items[item] |= {key: row_store.stub(each) for key, each in found.items()}
    try:
        orbax_io.save_items(temporary, items)
        for item, found in rows.items():
            row_store.write_rows(temporary / item / row_store.folder_of(0), found)
        of_others = {} if leading is None else leading.sums()
        _take_in(temporary, of_others, rows)
        index = replace(index, groups=groups, files=take_inventory(temporary))
        index = with_checksums(index, *_whole_sums(snapshot, sums.result(), of_others))
        (temporary / INDEX_FILE).write_bytes(dump_index(index))
        files.commit(temporary, path)
        return index
    except BaseException:
        with suppress(OSError):  # the space may be what is lacking; what stays behind is swept up later
            for leftover in path.parent.glob(temporary.name + "*"):
                shutil.rmtree(leftover)
        raise
    finally:
        sums.join()


def write_own_rows(directory: Path, name: str, snapshot: Snapshot, rank: int) -> dict[Place, int]:
    """Write the rows of a process other than the first, next to the checkpoint that this one writes.

    Args:
        directory: of the checkpoints.
        name: of the directory that the first process will rename.
        snapshot: with this process's pieces.
        rank: the number of the process.

    Returns:
        The CRC-32 of its rows of each piece.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"there is no directory {directory}, which process 0 has made")
    files.require_room(directory, _nbytes_of_rows(snapshot))
    sums = Checksums(own_rows(snapshot))
    try:
        for item, found in rows_to_write(snapshot).items():
            row_store.write_rows(folder_of_rank(directory, name, rank) / item / row_store.folder_of(rank), found)
        files.sync_tree(folder_of_rank(directory, name, rank))
        return sums.result()
    finally:
        sums.join()


def folder_of_rank(directory: Path, name: str, rank: int) -> Path:
    """Where a process writes its rows before the first one takes them into the checkpoint."""
    return directory / f"{name}.rank{rank}"


def rows_to_write(snapshot: Snapshot) -> dict[str, dict[str, row_store.Rows]]:
    """This process's rows as they are stored, by item and key."""
    found: dict[str, dict[str, row_store.Rows]] = {}
    for (group, path), piece in snapshot.pieces.items():
        record = snapshot.groups[group]
        if not piece.rank or len(piece.own):
            _, shape = arrays.stored_form(record.leaves[path].dtype, piece.shape)
            array = arrays.to_numpy(piece.rows)
            rows = row_store.Rows(array, shape, piece.rank)
            found.setdefault(record.item, {})[bundles.key_of(record.leaves[path])] = rows
    return found


def own_rows(snapshot: Snapshot) -> dict[Place, orbax_io.Array]:
    """This process's rows without what fills them up."""
    return {place: arrays.to_numpy(piece.own) for place, piece in snapshot.pieces.items()}


def _nbytes_of_rows(snapshot: Snapshot) -> int:
    return sum(piece.rows.nbytes for piece in snapshot.pieces.values())


def _take_in(temporary: Path, ranks: Mapping[int, object], rows: Mapping[str, object]) -> None:
    """Bring the rows of the other processes into the checkpoint."""
    for rank in ranks:
        folder = folder_of_rank(temporary.parent, temporary.name, rank)
        for item in folder.iterdir() if folder.is_dir() else ():
            own = row_store.folder_of(rank)
            (item / own).rename(temporary / item.name / own)
    for item_name in rows:
        row_store.merge(temporary / item_name)


def _whole_sums(
    snapshot: Snapshot, own: Mapping[Place, int], of_others: Mapping[int, Mapping[Place, int]]
) -> tuple[dict[Place, int], dict[Place, tuple[int, ...]]]:
    """The CRC-32 of each array, and of each process's rows of those in pieces."""
    whole, parts = dict(own), {}
    for place, piece in snapshot.pieces.items():
        by_rank = [own[place], *(of_others[rank][place] for rank in range(1, piece.ranks))]
        counted = [(crc32, count) for crc32, count in zip(by_rank, piece.counts) if count]
        parts[place] = tuple(crc32 for crc32, _ in counted)
        whole[place] = checksums.joined((crc32, count * piece.row_nbytes) for crc32, count in counted)
    return whole, parts


class Checksums(threading.Thread):
    """CRC-32 of every array, taken while the disk is busy: one after the other they were a fifth of a save."""

    def __init__(self, found: Mapping[Place, orbax_io.Array]) -> None:
        super().__init__(name="functrain-checksums", daemon=False)
        self._found = found
        self._sums: dict[Place, int] | None = None
        self.start()

    def run(self) -> None:
        """Called by the thread itself."""
        self._sums = {place: arrays.crc32(array) for place, array in self._found.items()}

    def result(self) -> dict[Place, int]:
        """Wait for them."""
        self.join()
        assert self._sums is not None, "the checksums' thread ended with an error, which it has printed"
        return self._sums
