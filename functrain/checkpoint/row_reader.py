"""What one of several processes needs of a checkpoint: its rows of some tensors, and others whole.

No array is in memory whole but those that are asked for whole, and these once. The checksum of an array is that of all
its rows, so the processes compare theirs: together they have read each row once.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from functrain.checkpoint import arrays, bundles, checksums, orbax_io
from functrain.checkpoint.errors import DamagedCheckpointError, describe, is_damage, passing
from functrain.checkpoint.grouping import full_path
from functrain.checkpoint.index import GroupRecord, Index, LeafRecord
from functrain.checkpoint.row_store import StoredArrays, UnknownLayoutError
from functrain.checkpoint.together import Place
from functrain.checkpoint.uninterrupted import stop_if_abandoned
from functrain.foundation.errors import CheckpointError
from functrain.foundation.pieces import Piece


@dataclass
class Wanted:
    """What a process needs of a checkpoint, by group and path of the stored array.

    Attributes:
        pieces: those of which it needs its rows.
        wholes: those that it needs whole.
        users: the leaves that an array is for, of each of the two, with their devices: tied ones share it.
    """

    pieces: dict[Place, Piece] = field(default_factory=dict)
    wholes: dict[Place, LeafRecord] = field(default_factory=dict)
    users: dict[tuple[bool, Place], list[tuple[Place, torch.device]]] = field(default_factory=dict)

    def add(self, source: Place, record: LeafRecord, user: Place, target: Any, device: torch.device) -> None:
        """Need an array for a leaf, which is to take the place of `target`."""
        in_rows = isinstance(target, Piece)
        if in_rows:
            self.pieces[source] = target
        else:
            self.wholes[source] = record
        self.users.setdefault((in_rows, source), []).append((user, device))


def read_rows(directory: Path, index: Index, wanted: Wanted) -> tuple[dict[Place, torch.Tensor], dict[Place, int]]:
    """Read what a process needs.

    Args:
        directory: the checkpoint's.
        index: its index.
        wanted: what it needs.

    Returns:
        The tensors by leaf, of a piece its rows with zeros behind them; and the CRC-32 of the rows of each piece, which
        are to be compared with those of the other processes. What is wanted whole has been verified.

    Raises:
        DamagedCheckpointError: bytes are missing or are not those that were written.
        CheckpointError: it cannot be read now.
    """
    found: dict[Place, torch.Tensor] = {}
    sums: dict[Place, int] = {}
    opened: dict[str, _Item] = {}
    for (in_rows, source), users in wanted.users.items():
        stop_if_abandoned()
        group, path = source
        record = index.groups[group].leaves[path]
        try:
            if group not in opened:
                opened[group] = _Item(directory, index.groups[group])
            read = opened[group].rows(record, wanted.pieces[source]) if in_rows else opened[group].whole(record)
        except Exception as error:
            raise _reading_error(directory, full_path(group, path), error) from error
        tensor, crc32 = read
        if in_rows:
            sums[source] = crc32
        elif crc32 != record.crc32:
            raise DamagedCheckpointError(directory, damage(index, source))
        found |= {user: tensor.to(device) for user, device in users}
    return found, sums


def check_sums(
    directory: Path, index: Index, pieces: Mapping[Place, Piece], sums: Sequence[Mapping[Place, int]]
) -> None:
    """Compare the checksums of all processes' rows with those of the arrays.

    Raises:
        DamagedCheckpointError: the bytes of an array are not those that were written.
    """
    for place, piece in pieces.items():
        parts = [(own[place], count * piece.row_nbytes) for own, count in zip(sums, piece.counts, strict=True)]
        record = index.groups[place[0]].leaves[place[1]]
        if checksums.joined(parts) != record.crc32:
            same = record.pieces is not None and record.pieces[0] == len(piece.rows)
            raise DamagedCheckpointError(directory, damage(index, place, [own for own, _ in parts] if same else ()))


def damage(index: Index, place: Place, sums: Sequence[int] = ()) -> str:
    """What is wrong with an array, in words.

    Args:
        index: of the checkpoint.
        place: the array's group and path.
        sums: the CRC-32 of the rows of each process that wrote it, as they are found, if they are known.
    """
    group, path = place
    record = index.groups[group].leaves[path]
    text = f"the data of {full_path(group, path)} do not match their checksum"
    count, written = record.pieces or (1, ())
    for rank in [rank for rank, (found, each) in enumerate(zip(sums, written)) if found != each][:1]:
        last = min((rank + 1) * count, record.shape[0]) - 1
        text += f"; the damage is in rows {rank * count} to {last}, which process {rank} wrote"
    return text


def sums_of_pieces(record: LeafRecord, array: orbax_io.Array) -> list[int]:
    """The CRC-32 of the rows of each process that wrote a whole array."""
    if record.pieces is None:
        return []
    flat, step = array.reshape(-1).view("uint8"), arrays.nbytes(record.dtype, (record.pieces[0], *record.shape[1:]))
    return [zlib.crc32(flat[start : start + step].data) for start in range(0, len(flat), step)]


class _Item:
    """The arrays of a group."""

    def __init__(self, directory: Path, group: GroupRecord) -> None:
        self._directory, self._group = directory, group
        self._store = StoredArrays(directory / group.item)

    def rows(self, record: LeafRecord, piece: Piece) -> tuple[torch.Tensor, int]:
        """A process's rows, filled up with zeros, and their CRC-32."""
        rows = torch.zeros(piece.rows.shape, dtype=piece.dtype)
        begin = piece.first * piece.row_nbytes
        crc32 = self._fill(record, rows, begin, len(piece.own) * piece.row_nbytes)
        return rows, crc32

    def whole(self, record: LeafRecord) -> tuple[torch.Tensor, int]:
        """All of a tensor, and its CRC-32."""
        flat = torch.empty(record.shape, dtype=arrays.DTYPES[record.dtype])
        crc32 = self._fill(record, flat, 0, record.stored_nbytes)
        if record.stride is None:
            return flat, crc32
        return arrays.empty(record.dtype, record.shape, record.stride, "cpu").copy_(flat), crc32

    def _fill(self, record: LeafRecord, target: torch.Tensor, begin: int, nbytes: int) -> int:
        """Fill a tensor's first bytes with some of an array's; their CRC-32."""
        key, form = bundles.key_of(record), bundles.stored_forms(self._group, [record.path])
        start = begin + (record.bundle[1] * arrays.DTYPES[record.dtype].itemsize if record.bundle else 0)
        memory, filled, crc32 = arrays.raw_bytes(target), 0, 0
        try:
            for part in self._store.parts(key, form[key], start, start + nbytes):
                memory[filled : filled + len(part)] = part
                filled, crc32 = filled + len(part), zlib.crc32(part, crc32)
        except UnknownLayoutError:
            array = orbax_io.load_item(self._directory, self._group.item, form, whole=False)[key]
            part = array.reshape(-1).view("uint8")[start : start + nbytes].tobytes()
            memory[:nbytes], crc32 = part, zlib.crc32(part)
        return crc32


def _reading_error(directory: Path, name: str, error: Exception) -> BaseException:
    if condition := passing(error):
        return condition
    reason = f"the data of {name} cannot be read ({describe(error)})"
    if is_damage(error):
        return DamagedCheckpointError(directory, reason)
    return CheckpointError(f"checkpoint {directory}: {reason}; nothing says that it is damaged: try again")
