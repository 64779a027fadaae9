"""Rows of arrays in orbax's files, written and read by several processes without orbax: tensorstore alone.

orbax keeps an item's arrays in a key-value store: for each array its description (`KEY/zarr.json`) and its chunks
(`KEY/c/0/0`). A process writes its rows as a chunk into a store of its own, below the item. `merge` lets the item's
store refer to them, as orbax does with those of its processes; no data are copied. So orbax reads what comes of it.
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
AT_ONCE = 2**22  # bytes of a read: tensorstore and Python each have them once more

# As orbax writes: descriptions stand among the keys, so that one node holds all of them.
_CONFIG = {"max_inline_value_bytes": 1024, "max_decoded_node_bytes": 100_000_000}
_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}]
_PLACE = struct.Struct("<QQ")  # of the one inner chunk in orbax's chunks, beside 4 bytes of a checksum


class UnknownLayoutError(Exception):
    """An array that this module cannot read in parts."""


@dataclass(frozen=True)
class Rows:
    """The rows of an array that a process writes.

    Attributes:
        array: they, filled up to as many as each process has.
        shape: of the whole array.
        rank: the number of the process.
    """

    array: Array
    shape: tuple[int, ...]
    rank: int


def stub(rows: Rows) -> Array:
    """What orbax writes in the place of the whole array, so that the item knows its name."""
    return np.zeros((1,) * len(rows.shape), rows.array.dtype)


def folder_of(rank: int) -> str:
    """The name of the folder below an item with a process's rows."""
    return f"ocdbt.process_rank{rank}"


def write_rows(directory: Path, found: Mapping[str, Rows]) -> None:
    """Write a process's rows into a new store. They are on the disk when this returns.

    Args:
        directory: of the store.
        found: by key. A process that has no row of an array need not name it.
    """
    import tensorstore

    directory.mkdir(parents=True)
    context, transaction = tensorstore.Context(), tensorstore.Transaction(atomic=True)
    opened = [
        tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": {**_store(directory), "config": _CONFIG, "path": f"{key}/"},
                "metadata": {
                    "shape": rows.shape,
                    "data_type": rows.array.dtype.name,
                    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": rows.array.shape}},
                    "codecs": _CODECS,
                },
                "create": True,
                "open": True,
                "store_data_equal_to_fill_value": True,
            },
            context=context,
            transaction=transaction,
        )
        for key, rows in found.items()
    ]
    writing = []
    for future, rows in zip(opened, found.values(), strict=True):
        first = rows.rank * len(rows.array)
        count = min(len(rows.array), rows.shape[0] - first)
        target = future.result()[first : first + count]
        writing.append(target.write(rows.array[:count], can_reference_source_data_indefinitely=True))
    for each in writing:
        each.result()
    transaction.commit_async().result()


def merge(item: Path) -> None:
    """Let an item's store refer to the rows in the stores below it."""
    import tensorstore

    context = tensorstore.Context()  # of one context, else no store may refer to another
    whole = tensorstore.KvStore.open(_store(item), context=context).result()
    transaction = tensorstore.Transaction(atomic=True)
    for directory in sorted(item.glob(folder_of(0)[:-1] + "*")):
        part = tensorstore.KvStore.open(_store(directory), context=context).result()
        part.experimental_copy_range_to(whole.with_transaction(transaction)).result()
    transaction.commit_async().result()


class StoredArrays:
    """The arrays of one item, to be read in parts.

    Args:
        item: its directory.
    """

    def __init__(self, item: Path) -> None:
        import tensorstore

        self._store = tensorstore.KvStore.open(_store(item), context=tensorstore.Context()).result()

    def parts(self, key: str, form: tuple[np.dtype[Any], tuple[int, ...]], begin: int, end: int) -> Iterator[bytes]:
        """The bytes of a range of an array, in its order, in parts.

        Args:
            key: the array's.
            form: its dtype and shape.
            begin, end: the range, in bytes.

        Raises:
            ValueError: the array is not there, or has another form.
            UnknownLayoutError: it is there, but not in rows that are stored as they are.
        """
        dtype, shape = form
        description = json.loads(self._value(f"{key}/zarr.json"))
        if tuple(description["shape"]) != shape or description["data_type"] != dtype.name:
            raise ValueError(f"{key} is stored with the shape {description['shape']}, {list(shape)} was expected")
        chunk = tuple(description["chunk_grid"]["configuration"]["chunk_shape"])
        if chunk[1:] != shape[1:] or 0 in chunk:
            raise UnknownLayoutError(key)
        in_shards = _is_sharded(description["codecs"], chunk)
        size = math.prod(chunk) * dtype.itemsize
        while begin < end:
            number, offset = divmod(begin, size)
            stop = min(size, offset + end - begin, offset + AT_ONCE)
            name = "/".join([key, "c", *([str(number)] + ["0"] * (len(shape) - 1) if shape else [])])
            start = self._start_of_data(name, size) if in_shards else 0
            part = self._value(name, slice(start + offset, start + stop))
            if len(part) != stop - offset:
                raise ValueError(f"{name} has too few bytes")
            yield part
            begin += len(part)

    def _value(self, name: str, where: slice | None = None) -> bytes:
        found = self._store.read(name, byte_range=where).result()
        if found.state != "value":
            raise ValueError(f"{name} is not there")
        value: bytes = found.value
        return value

    def _start_of_data(self, name: str, size: int) -> int:
        start, nbytes = _PLACE.unpack_from(self._value(name, slice(-_PLACE.size - 4, None)))
        if nbytes != size:
            raise ValueError(f"{name} has {nbytes} bytes of data, {size} were expected")
        return int(start)


def _is_sharded(codecs: list[dict[str, Any]], chunk: tuple[int, ...]) -> bool:
    """Whether a chunk has an index behind its data, as orbax writes it, or nothing but its data."""
    names = [codec["name"] for codec in codecs]
    if names == ["sharding_indexed"]:
        inner = codecs[0]["configuration"]
        behind = inner.get("index_location", "end") == "end"
        plain = [codec["name"] for codec in inner["codecs"]] == ["bytes"]
        index = [codec["name"] for codec in inner["index_codecs"]]
        if behind and plain and index == ["bytes", "crc32c"] and tuple(inner["chunk_shape"]) == chunk:
            return True
    elif names == ["bytes"]:
        return False
    raise UnknownLayoutError(str(names))


def _store(directory: Path) -> dict[str, Any]:
    return {"driver": "ocdbt", "base": {"driver": "file", "path": f"{os.fspath(directory)}/"}}
