"""The log of a run as TensorBoard's event files, that can be cut back.

`events/events.out.tfevents.<number>.functrain` holds the file's version and then one event for each record of
`metrics.jsonl`: its numbers as scalars at the record's step. TensorBoard's own writers append for ever, so that after
a kill and a resume steps stand there twice. Here a resumed run writes a new file, which begins with the events that
belong to the restored state, at the times they were made, and takes the place of the old one. Written here without
the library of that name, for both formats are small, importing it takes a second, and its writer keeps events in a
queue that a kill empties.

References:
    https://www.tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details";
    tensorboard/compat/proto/event.proto and summary.proto, for the numbers of the fields.
"""

import os
import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from functrain.foundation.numbers import is_number

FOLDER = "events"
_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.functrain\Z")
_NO_SCALARS = frozenset({"kind", "step"})
_PREFIXES = ("train_", "eval_", "ema_")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
_HEAD, _TAIL = 12, 4  # bytes of a TFRecord around its data
_TIME = 9  # bytes of an event's first field
_POLYNOMIAL, _MASK_DELTA = 0x82F63B78, 0xA282EAD8  # CRC-32C, reflected; TFRecord's constant


class EventFile:
    """The event file of a run.

    Attributes:
        path: the file's.

    Args:
        directory: the run's.
        records: those that belong to the state at hand. Their events are taken over from the file that is there,
            as far as it has them; all later ones are left out.
    """

    def __init__(self, directory: Path, records: Sequence[Mapping[str, Any]]) -> None:
        folder = directory / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        older = sorted((int(found[1]), path) for path in folder.iterdir() if (found := _NAME.match(path.name)))
        events = [_event(record) for record in records]
        content = older[-1][1].read_bytes() if older else b""
        there = list(_frames(content))
        kept = [frame for frame, _ in takewhile(_same, zip(there[1:], events))]
        if len(older) == 1 and len(kept) == len(events) and len(content) == sum(map(len, there[: len(kept) + 1])):
            self.path = older[0][1]  # there is nothing to cut off
            return
        number = older[-1][0] + 1 if older else 1
        self.path = folder / f"events.out.tfevents.{number:06d}.functrain"
        version = _frame(_field(1, _FIXED64, time.time()) + _field(3, _BYTES, b"brain.Event:2"))
        made = [_frame(event) for event in events[len(kept) :]]
        # A name that TensorBoard does not look at. Should a kill leave both files, the next start takes the newer.
        temporary = folder / ".incomplete"
        temporary.write_bytes(b"".join([version, *kept, *made]))
        os.replace(temporary, self.path)
        for _, path in older:
            path.unlink()

    def frame(self, record: Mapping[str, Any]) -> bytes:
        """What is appended to the file for a record."""
        return _frame(_event(record))


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The names under which TensorBoard shows a record's numbers, and these.

    Example:
        >>> scalars({"kind": "step", "epoch": 1, "step": 10, "loss": 0.5})
        {'step/epoch': 1, 'step/loss': 0.5}
        >>> scalars({"kind": "epoch", "epoch": 1, "step": 20, "lr": 0.1, "train_loss": 0.4, "eval_loss": 0.6})
        {'epoch/epoch': 1, 'epoch/lr': 0.1, 'train/loss': 0.4, 'eval/loss': 0.6}
    """
    found = {}
    for name, value in record.items():
        if name in _NO_SCALARS or not is_number(value):
            continue
        prefix = next((prefix for prefix in _PREFIXES if record["kind"] != "step" and name.startswith(prefix)), "")
        found[f"{prefix.removesuffix('_') or record['kind']}/{name.removeprefix(prefix)}"] = value
    return found


def _event(record: Mapping[str, Any]) -> bytes:
    values = b"".join(
        _field(1, _BYTES, _field(1, _BYTES, tag.encode()) + _field(2, _FIXED32, value))
        for tag, value in scalars(record).items()
    )
    return _field(1, _FIXED64, time.time()) + _field(2, _VARINT, record["step"]) + _field(5, _BYTES, values)


def _field(number: int, kind: int, value: Any) -> bytes:
    """A field of a protocol buffer."""
    head = _varint(number << 3 | kind)
    if kind == _VARINT:
        return head + _varint(value)
    if kind == _BYTES:
        return head + _varint(len(value)) + bytes(value)
    if kind == _FIXED64:
        return head + struct.pack("<d", value)
    try:
        return head + struct.pack("<f", value)
    except OverflowError:  # beyond float32, in which TensorBoard keeps scalars
        return head + struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _frame(data: bytes) -> bytes:
    """A TFRecord: length and data, each with its checksum."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _frames(content: bytes) -> Iterator[bytes]:
    """The records of a file with their frames, up to one that is incomplete: a kill while writing."""
    start = 0
    while start + _HEAD <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        end = start + _HEAD + length + _TAIL
        if end > len(content):
            return
        yield content[start:end]
        start = end


def _same(pair: tuple[bytes, bytes]) -> bool:
    """Whether a frame holds an event, whatever the times. (Checksums in Python cost more than this comparison.)"""
    frame, event = pair
    return frame[_HEAD + _TIME : -_TAIL] == event[_TIME:]


def _checksum(data: bytes) -> bytes:
    """CRC-32C, masked as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (crc >> 15 | crc << 17) + _MASK_DELTA & 0xFFFFFFFF)


def _table() -> list[int]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _table()
