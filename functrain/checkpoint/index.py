"""The index of a checkpoint: what it holds, and the checksums.

The index is one JSON file inside the checkpoint. It holds every leaf's path, dtype, shape and
CRC-32, which leaves are tied, the scalars themselves, and what the caller said about the
checkpoint. The arrays' storage has no checksums of its own, so these are what makes damage
visible; an inventory does the same for the files around them. The index in turn stands under a
SHA-256 of its exact bytes.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from functrain.checkpoint import arrays, names, scalars
from functrain.checkpoint.errors import DamagedCheckpointError, reading_error
from functrain.checkpoint.inventory import FileRecord
from functrain.foundation.errors import CheckpointError
from functrain.foundation.numbers import is_integer
from functrain.foundation.regular_files import read_regular

INDEX_FILE = "functrain.json"
FORMAT_VERSION = 2
_READABLE = (1, 2)  # version 2 has bundles
_LARGEST = 2**30  # bytes; one of a million leaves has a quarter

_FRAME = re.compile(rb'\{"sha256": "([0-9a-f]{64})", "index":\n(.*)\n\}\n', re.DOTALL)


class LeafRecord(NamedTuple):
    """One leaf of the saved tree; a tuple, for there are thousands of them in each save.

    Args:
        path: unique in its group; "" if the group is the leaf.
        kind: "array", "empty" (no elements, so nothing stored),
            "alias" (tied to a leaf that is stored) or "scalar".
        dtype: a key of `arrays.DTYPES`, or the type of the scalar.
        shape: of a tensor.
        stride: of a dense tensor that is not in row-major order, in elements.
        crc32: of an array's bytes.
        alias: (group, path) of the leaf that is stored.
        value: the scalar.
        bundle: where the data stand if they are stored with others': (key, offset in elements).
        pieces: of an array that several processes wrote, how many rows each has, and the CRC-32 of each one's rows.
    """

    path: str
    kind: Literal["array", "empty", "alias", "scalar"]
    dtype: str
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] | None = None
    crc32: int | None = None
    alias: tuple[str, str] | None = None
    value: scalars.Scalar = None
    bundle: tuple[str, int] | None = None
    pieces: tuple[int, tuple[int, ...]] | None = None

    @property
    def numel(self) -> int:
        """Elements of a tensor."""
        return math.prod(self.shape)

    @property
    def stored_nbytes(self) -> int:
        """Bytes that this leaf takes on disk."""
        return arrays.nbytes(self.dtype, self.shape) if self.kind == "array" else 0


@dataclass(frozen=True)
class GroupRecord:
    """One top-level child of the saved tree; `item` is the directory that holds its arrays."""

    name: str
    item: str
    leaves: Mapping[str, LeafRecord]


@dataclass(frozen=True)
class Index:
    """All that is known of a checkpoint without reading an array."""

    step: int
    micro_step: int
    status: str
    metric: float | None
    time: str
    metadata: Mapping[str, Any]
    groups: Mapping[str, GroupRecord] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def source(self, group: str, leaf: LeafRecord) -> tuple[str, LeafRecord]:
        """The leaf that holds the data of `leaf`: itself, or the one it is tied to."""
        if leaf.alias is None:
            return group, leaf
        owner, path = leaf.alias
        return owner, self.groups[owner].leaves[path]


def make_index(step: int, micro_step: int, status: str, metric: float | None, metadata: Mapping[str, Any]) -> Index:
    """What a save says about the checkpoint, checked; without groups.

    Raises:
        TypeError: JSON cannot hold the metadata.
        ValueError: a number or the status is not allowed.
    """
    for name, value in (("step", step), ("micro_step", micro_step)):
        if not is_integer(value, 0):
            raise ValueError(f"{name} must be an integer of at least 0, got {value!r}")
    if not isinstance(status, str) or not status:
        raise ValueError(f"status must be a word, got {status!r}")
    try:
        # Through JSON now: errors show at the call, and later changes by the caller do not.
        plain = json.loads(json.dumps(dict(metadata)))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata must be what JSON can hold: {error}") from error
    return Index(
        step=step,
        micro_step=micro_step,
        status=status,
        metric=None if metric is None else float(metric),
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        metadata=plain,
    )


def with_checksums(
    index: Index,
    checksums: Mapping[tuple[str, str], int],
    of_pieces: Mapping[tuple[str, str], tuple[int, ...]] = {},
) -> Index:
    """The index with the CRC-32 of each array filled in, and of the pieces of those that have some."""

    def filled(place: tuple[str, str], leaf: LeafRecord) -> LeafRecord:
        if leaf.kind != "array":
            return leaf
        pieces = None if leaf.pieces is None else (leaf.pieces[0], of_pieces[place])
        return leaf._replace(crc32=checksums[place], pieces=pieces)

    groups = {
        group.name: replace(
            group, leaves={path: filled((group.name, path), leaf) for path, leaf in group.leaves.items()}
        )
        for group in index.groups.values()
    }
    return replace(index, groups=groups)


def dump_index(index: Index) -> bytes:
    """The bytes of the index file."""
    body = json.dumps(
        {
            "format_version": index.format_version,
            "step": scalars.encode(index.step),
            "micro_step": scalars.encode(index.micro_step),
            "status": index.status,
            "metric": scalars.encode(index.metric),
            "time": index.time,
            "metadata": dict(index.metadata),
            "groups": [
                {
                    "name": g.name,
                    "item": g.item,
                    "leaves": [_leaf_to_json(leaf) for leaf in g.leaves.values()],
                }
                for g in index.groups.values()
            ],
            "files": index.files,
        }
    ).encode()
    checksum = hashlib.sha256(body).hexdigest().encode()
    return b'{"sha256": "' + checksum + b'", "index":\n' + body + b"\n}\n"


def load_index(directory: Path) -> Index:
    """Read and verify the index of the checkpoint in `directory`.

    Raises:
        DamagedCheckpointError: the index is missing or its bytes are not those that were written.
        CheckpointError: it was written by a newer functrain, or cannot be read now.
    """
    try:
        data = read_regular(directory / INDEX_FILE, _LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        if (directory / "checkpoints").is_dir():
            raise CheckpointError(
                f"{directory} is the directory of a run, not of a checkpoint; give one of those in "
                f"{directory / 'checkpoints'}, such as {directory / 'checkpoints' / 'last'}"
            ) from None
        raise DamagedCheckpointError(directory, f"its index {INDEX_FILE} is missing") from None
    except OSError as error:
        raise reading_error(directory, error) from error
    frame = _FRAME.fullmatch(data)
    if frame is None or hashlib.sha256(frame[2]).hexdigest().encode() != frame[1]:
        raise DamagedCheckpointError(directory, f"the checksum of its index {INDEX_FILE} does not match")
    try:
        body = json.loads(frame[2])
        version = body["format_version"]
        if version in _READABLE:
            return _index_from_json(body)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedCheckpointError(
            directory, f"its index {INDEX_FILE} does not have the expected form ({error!r})"
        ) from error
    raise CheckpointError(
        f"checkpoint {directory} has format version {version}, this functrain reads up to {FORMAT_VERSION}: "
        f"read it with the functrain that wrote it"
    )


def _leaf_to_json(leaf: LeafRecord) -> dict[str, Any]:
    record: dict[str, Any] = {"path": leaf.path, "kind": leaf.kind, "dtype": leaf.dtype}
    if leaf.kind == "scalar":
        return record | {"value": scalars.encode(leaf.value)}
    record["shape"] = list(leaf.shape)
    if leaf.stride is not None:
        record["stride"] = list(leaf.stride)
    if leaf.kind == "alias":
        record["alias"] = list(leaf.alias or ())
    if leaf.kind == "array":
        record["crc32"] = leaf.crc32
    if leaf.bundle is not None:
        record["bundle"] = list(leaf.bundle)
    if leaf.pieces is not None:
        record["pieces"] = list(leaf.pieces)
    return record


def _leaf_from_json(record: dict[str, Any]) -> LeafRecord:
    path, kind, dtype = record["path"], record["kind"], record["dtype"]
    if kind == "scalar":
        return LeafRecord(path, kind, dtype, value=scalars.decode(record["value"]))
    if kind not in ("array", "empty", "alias") or dtype not in arrays.DTYPES:
        raise ValueError(f"unknown kind {kind!r} or dtype {dtype!r} of leaf {path!r}")
    shape = tuple(_natural(size) for size in record["shape"])
    stride = tuple(_natural(size) for size in record["stride"]) if "stride" in record else None
    if stride is not None and not arrays.is_dense(shape, stride):  # it decides how much memory is allocated
        raise ValueError(f"strides {stride} do not fit shape {shape} of leaf {path!r}")
    if kind == "alias":
        owner, source = record["alias"]
        return LeafRecord(path, kind, dtype, shape, stride, alias=(owner, source))
    if kind == "empty":
        return LeafRecord(path, kind, dtype, shape, stride)
    bundle = None
    if "bundle" in record:
        key, offset = record["bundle"]
        bundle = (str(key), _natural(offset))
    pieces = None
    if "pieces" in record:
        rows, sums = record["pieces"]
        if not shape or not _natural(rows) or len(sums) != -(-shape[0] // rows):
            raise ValueError(f"{len(sums)} pieces of {rows} rows do not make the shape {shape} of leaf {path!r}")
        pieces = (rows, tuple(_natural(each) for each in sums))
    return LeafRecord(path, kind, dtype, shape, stride, _natural(record["crc32"]), bundle=bundle, pieces=pieces)


def _file_from_json(name: str, size: Any, crc32: Any) -> FileRecord:
    if ".." in name.split("/") or os.path.isabs(name):  # it is joined to a path
        raise ValueError(f"file {name!r} is not inside the checkpoint")
    return FileRecord(_natural(size), None if crc32 is None else _natural(crc32))


def _natural(value: Any) -> int:
    if not is_integer(value, 0):
        raise ValueError(f"{value!r} is not a natural number")
    return value


def _index_from_json(body: dict[str, Any]) -> Index:
    groups: dict[str, GroupRecord] = {}
    for record in body["groups"]:
        if not names.is_item_name(record["item"]):  # it becomes part of a path
            raise ValueError(f"item {record['item']!r} is not a plain name")
        leaves = [_leaf_from_json(leaf) for leaf in record["leaves"]]
        groups[record["name"]] = GroupRecord(record["name"], record["item"], {leaf.path: leaf for leaf in leaves})
    index = Index(
        step=_natural(scalars.decode(body["step"])),
        micro_step=_natural(scalars.decode(body["micro_step"])),
        status=str(body["status"]),
        metric=_metric(scalars.decode(body["metric"])),
        time=str(body["time"]),
        metadata=dict(body["metadata"]),
        groups=groups,
        files={name: _file_from_json(name, *record) for name, record in body["files"].items()},
    )
    for group in groups.values():
        _check_bundles(group)
        for leaf in group.leaves.values():
            if leaf.kind == "alias" and index.source(group.name, leaf)[1].kind != "array":
                raise ValueError(f"leaf {leaf.path!r} is tied to a leaf that is not stored")
    return index


def _metric(value: scalars.Scalar) -> float | None:
    if value is None or type(value) is float:
        return value
    raise ValueError(f"metric {value!r} is not a number")


def _check_bundles(group: GroupRecord) -> None:
    """Refuse places that overlap or leave holes: they decide how much memory is allocated."""
    ends: dict[str, int] = {}
    for leaf in group.leaves.values():
        if leaf.bundle is not None:
            key, offset = leaf.bundle
            if key != names.bundle_key(leaf.dtype) or offset != ends.get(key, 0) or arrays.is_raw(leaf.dtype):
                raise ValueError(f"leaf {leaf.path!r} cannot be at place {offset} of bundle {key!r}")
            ends[key] = offset + leaf.numel
