"""One checkpoint from disk, verified."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from functrain.checkpoint import arrays, bundles, orbax_io
from functrain.checkpoint.descriptors import FOR_READING, require_descriptors
from functrain.checkpoint.errors import DamagedCheckpointError, describe, is_damage, passing, reading_error
from functrain.checkpoint.grouping import Liberties, fitted, full_path, liberties, split
from functrain.checkpoint.index import GroupRecord, Index, LeafRecord, load_index
from functrain.checkpoint.info import CheckpointInfo, checkpoint_directory, make_info
from functrain.checkpoint.inventory import check_inventory
from functrain.checkpoint.matching import check_fit
from functrain.checkpoint.row_reader import Wanted, check_sums, damage, read_rows, sums_of_pieces
from functrain.checkpoint.scalars import Scalar
from functrain.checkpoint.together import Peers, read_alike
from functrain.checkpoint.uninterrupted import stop_if_abandoned, uninterrupted
from functrain.foundation.errors import CheckpointError
from functrain.foundation.pieces import Piece
from functrain.foundation.trees import Tree

_Source = tuple[str, str]  # (group, path) of a leaf whose data are stored


class Restored(NamedTuple):
    """A tree from a checkpoint, and what the checkpoint says about itself."""

    tree: Tree
    info: CheckpointInfo


def read_checkpoint(
    path: str | os.PathLike[str], like: Tree, *, groups: Iterable[str] | None = None, peers: Peers | None = None
) -> Restored:
    """Read a checkpoint into the structure of `like`.

    Args:
        path: a checkpoint's directory.
        like: a tree of the saved structure. Its tensors (which may be on the meta device) give the
            expected shape and dtype and the device to restore to, meta meaning the CPU; its scalars
            only the place. For a `Piece` in the place of a tensor the tree gets the tensor of its rows.
        groups: the top-level children to read, all by default; the others stay as they are in `like`.
        peers: the processes that read together, each with its pieces: all of them succeed, or none.

    Returns:
        The tree, with plain tensors in fresh memory. Tensors that were tied when they were saved are
        one tensor again; scalars have the type they had.

    Raises:
        DamagedCheckpointError: bytes are missing or are not those that were written.
        CheckpointError: the checkpoint does not fit `like`, or cannot be read now.

    Example:
        >>> import tempfile
        >>> from functrain.checkpoint import Checkpointer
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with Checkpointer(directory) as checkpointer:
        ...         checkpointer.save({"params": {"w": torch.ones(2)}, "key": 2**64 - 1}, step=4)
        ...     like = {"params": {"w": torch.empty(2, device="meta")}, "key": 0}
        ...     read_checkpoint(f"{directory}/step-00000004", like).tree
        {'params': {'w': tensor([1., 1.])}, 'key': 18446744073709551615}
    """
    like = fitted(like, lambda: _forms(checkpoint_directory(path)))
    grouped = split(like)
    chosen = None if groups is None else list([groups] if isinstance(groups, str) else groups)
    leaves, info = uninterrupted(partial(_read_groups, path, grouped.groups, chosen, liberties(like), peers))
    return Restored(grouped.rebuild(leaves), info)


def _read_groups(
    path: str | os.PathLike[str],
    like: Mapping[str, Mapping[str, Any]],
    groups: list[str] | None,
    allowed: Liberties,
    peers: Peers | None,
) -> tuple[dict[str, list[Any]], CheckpointInfo]:
    """The values of each group of `like` in its order, and what the checkpoint says about itself."""

    def look() -> tuple[Path, Index, dict[str, Mapping[str, Any]]]:
        directory = checkpoint_directory(path)
        index = load_index(directory)
        known = list(dict.fromkeys([*like, *index.groups]))
        chosen = known if groups is None else _known_groups(directory, groups, like)
        targets = {group: like.get(group, {}) for group in chosen}
        check_fit(directory, index, targets, allowed.added, allowed.left_out)
        return directory, index, targets

    if peers is None:
        directory, index, targets = look()
        values = _read_leaves(directory, index, _records(index, targets), targets)
    else:
        directory, index, targets, values = _read_together(look, peers)
    for (group, leaf), number in allowed.added.items():
        if (group, leaf) not in values and isinstance(tensor := targets.get(group, {}).get(leaf), torch.Tensor):
            values[group, leaf] = torch.full_like(tensor, number, device="cpu" if tensor.is_meta else None)
    # A leaf without a value is None on both sides, or None here and absent there.
    leaves = {group: [values.get((group, leaf)) for leaf in targets[group]] for group in targets}
    return leaves, make_info(directory, index)


def _read_together(
    look: Callable[[], tuple[Path, Index, dict[str, Mapping[str, Any]]]], peers: Peers
) -> tuple[Path, Index, dict[str, Mapping[str, Any]], dict[_Source, torch.Tensor | Scalar]]:
    """The values that this process needs; all processes succeed, or none."""
    wanted = Wanted()

    def read() -> tuple[Any, Mapping[_Source, int]]:
        directory, index, targets = look()
        values: dict[_Source, torch.Tensor | Scalar] = {}
        for group, leaves in _records(index, targets).items():
            for path, record in leaves.items():
                target = targets[group][path]
                if record.kind == "scalar":
                    values[group, path] = record.value
                elif record.kind == "empty":
                    values[group, path] = arrays.empty(record.dtype, record.shape, None, _device(target))
                else:
                    owner, source = index.source(group, record)
                    wanted.add((owner, source.path), source, (group, path), target, _device(target))
        _check_files(directory, index, {owner for owner, _ in [*wanted.pieces, *wanted.wholes]})
        found, sums = read_rows(directory, index, wanted)
        return (directory, index, targets, values | found), sums

    (directory, index, targets, values), sums = read_alike(peers, read)
    check_sums(directory, index, wanted.pieces, sums)
    return directory, index, targets, values


def _forms(directory: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Name of each saved tensor -> dtype and shape."""
    return {
        full_path(group.name, path): (arrays.DTYPES[record.dtype], record.shape)
        for group in load_index(directory).groups.values()
        for path, record in group.leaves.items()
        if record.kind != "scalar"
    }


def read_arrays(
    path: str | os.PathLike[str], *, groups: Iterable[str] | None = None
) -> dict[str, dict[str, torch.Tensor | Scalar]]:
    """Read a checkpoint without knowing its structure.

    Args:
        path: a checkpoint's directory.
        groups: the top-level children to read, all by default.

    Returns:
        For each group, its tensors (on the CPU) and scalars by path.

    Raises:
        DamagedCheckpointError: bytes are missing or are not those that were written.
        CheckpointError: it has no such group, or cannot be read now.

    Example:
        >>> import tempfile
        >>> from functrain.checkpoint import Checkpointer
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with Checkpointer(directory) as checkpointer:
        ...         checkpointer.save({"params": {"w": torch.ones(2)}, "optimizer": (torch.zeros(2), 3)}, step=4)
        ...     read_arrays(f"{directory}/step-00000004", groups=["optimizer"])
        {'optimizer': {'0': tensor([0., 0.]), '1': 3}}
    """
    chosen = None if groups is None else list([groups] if isinstance(groups, str) else groups)
    return uninterrupted(partial(_read_everything, path, chosen))


def _read_everything(
    path: str | os.PathLike[str], groups: list[str] | None
) -> dict[str, dict[str, torch.Tensor | Scalar]]:
    directory = checkpoint_directory(path)
    index = load_index(directory)
    chosen = list(index.groups) if groups is None else _known_groups(directory, groups, index.groups)
    records = {group: index.groups[group].leaves for group in chosen}
    values = _read_leaves(directory, index, records, {})
    return {group: {p: values[group, p] for p in leaves} for group, leaves in records.items()}


def verify_checkpoint(path: str | os.PathLike[str]) -> CheckpointInfo:
    """Read all of a checkpoint and compare it with its checksums; no more than a group is in memory at a time.

    Args:
        path: a checkpoint's directory.

    Returns:
        What it says about itself.

    Raises:
        DamagedCheckpointError: bytes are missing or are not those that were written.
        CheckpointError: there is no such directory, or it cannot be read now.
    """
    return uninterrupted(partial(_verify, path))


def _verify(path: str | os.PathLike[str]) -> CheckpointInfo:
    directory = checkpoint_directory(path)
    index = load_index(directory)
    _check_files(directory, index, index.groups)
    stored = [(g.name, leaf.path) for g in index.groups.values() for leaf in g.leaves.values() if leaf.kind == "array"]
    for _ in _verified_arrays(directory, index, stored):
        pass
    return make_info(directory, index)


def _records(index: Index, targets: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, LeafRecord]]:
    """The index's records of those target leaves that the checkpoint has."""
    saved = {group: index.groups[group].leaves for group in targets if group in index.groups}
    return {group: {p: leaves[p] for p in targets[group] if p in leaves} for group, leaves in saved.items()}


def _known_groups(directory: Path, wanted: Iterable[str], known: Mapping[str, Any]) -> list[str]:
    chosen = list(dict.fromkeys(wanted))
    for group in chosen:
        if group not in known:
            raise CheckpointError(f"there is no group {group!r} to read from {directory}: there are {', '.join(known)}")
    return chosen


def _read_leaves(
    directory: Path,
    index: Index,
    records: Mapping[str, Mapping[str, LeafRecord]],
    targets: Mapping[str, Mapping[str, Any]],
) -> dict[_Source, torch.Tensor | Scalar]:
    """The values of `records` by (group, path), on the devices of `targets`."""
    values: dict[_Source, torch.Tensor | Scalar] = {}
    users: dict[_Source, dict[torch.device, list[_Source]]] = {}  # who shares which stored array, where
    for group, leaves in records.items():
        for path, record in leaves.items():
            device = _device(targets.get(group, {}).get(path))
            if record.kind == "scalar":
                values[group, path] = record.value
            elif record.kind == "empty":
                values[group, path] = arrays.empty(record.dtype, record.shape, None, device)
            else:
                owner, source = index.source(group, record)
                users.setdefault((owner, source.path), {}).setdefault(device, []).append((group, path))
    _check_files(directory, index, {owner for owner, _ in users})
    for (owner, path), array in _verified_arrays(directory, index, users):
        source = index.groups[owner].leaves[path]
        for device, places in users[owner, path].items():
            tensor = arrays.from_numpy(array, source.dtype, source.shape, source.stride, device)
            values.update(dict.fromkeys(places, tensor))
    return values


def _device(leaf: Any) -> torch.device:
    if isinstance(leaf, (torch.Tensor, Piece)) and leaf.device.type != "meta":
        return leaf.device
    return torch.device("cpu")


def _check_size(directory: Path, index: Index) -> None:
    """Bound what will be allocated by what is there; nothing is compressed."""
    declared = sum(leaf.stored_nbytes for group in index.groups.values() for leaf in group.leaves.values())
    present = sum(Path(root, file).stat().st_size for root, _, files in os.walk(directory) for file in files)
    if declared > present:
        raise DamagedCheckpointError(directory, f"it should hold {declared} bytes of arrays, its files have {present}")


def _check_files(directory: Path, index: Index, groups: Iterable[str]) -> None:
    try:
        _check_size(directory, index)
        check_inventory(directory, index.files, {index.groups[group].item for group in groups})
    except FileNotFoundError as error:
        raise DamagedCheckpointError(directory, f"its file {error.filename} vanished") from error
    except OSError as error:
        raise reading_error(directory, error) from error


def _verified_arrays(
    directory: Path, index: Index, wanted: Iterable[_Source]
) -> Iterator[tuple[_Source, orbax_io.Array]]:
    """Verified arrays, group by group, so that no more than a group is in memory twice."""
    paths: dict[str, list[str]] = {}
    for group, path in wanted:
        paths.setdefault(group, []).append(path)
    for name, group_paths in paths.items():
        stop_if_abandoned()
        loaded = _load_group(directory, index.groups[name], group_paths)
        records = [index.groups[name].leaves[path] for path in group_paths]
        with _Checksums([bundles.unpack(record, loaded) for record in records]) as checksums:
            loaded.clear()  # each array is let go when it has been used
            for record in records:
                array, crc32 = checksums.next()
                form = arrays.stored_form(record.dtype, record.shape)
                if (array.dtype, array.shape) != form or crc32 != record.crc32:
                    sums = sums_of_pieces(record, array) if array.shape == form[1] else []
                    raise DamagedCheckpointError(directory, damage(index, (name, record.path), sums))
                yield (name, record.path), array


def _load_group(directory: Path, group: GroupRecord, paths: Sequence[str]) -> dict[str, orbax_io.Array]:
    wanted = bundles.stored_forms(group, paths)
    whole = len(wanted) == len({bundles.key_of(leaf) for leaf in group.leaves.values() if leaf.kind == "array"})
    orbax_io.import_orbax()  # outside of the try: a broken installation is not a damaged checkpoint
    try:
        require_descriptors(FOR_READING)
        return orbax_io.load_item(directory, group.item, wanted, whole=whole)
    except Exception as error:
        if condition := passing(error):
            raise condition from error
        reason = f"the arrays of {group.name} cannot be read ({describe(error)})"
        if is_damage(error):
            raise DamagedCheckpointError(directory, reason) from error
        raise CheckpointError(
            f"checkpoint {directory}: {reason}; nothing says that it is damaged: try again"
        ) from error


class _Checksums:
    """Arrays and their CRC-32 in turn; those of large ones are taken by threads, while earlier arrays are copied."""

    def __init__(self, found: Sequence[orbax_io.Array]) -> None:
        self._pool = ThreadPoolExecutor(torch.get_num_threads(), "functrain-checksums")
        self._waiting = deque(
            (array, self._pool.submit(arrays.crc32, array) if array.nbytes > bundles.SMALL_NBYTES else None)
            for array in found
        )

    def next(self) -> tuple[orbax_io.Array, int]:
        array, future = self._waiting.popleft()
        return array, arrays.crc32(array) if future is None else future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
