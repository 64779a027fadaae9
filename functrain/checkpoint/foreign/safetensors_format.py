"""The safetensors format: named tensors in one file.

Eight bytes with the header's length, little-endian; the header, JSON, with each tensor's dtype, shape and
place; then the data, without holes. Nothing in such a file is executed, and nothing is allocated before
the header has been checked against the file's size. Read and written here without the library of that
name, for the format is all there is to it.

References:
    https://huggingface.co/docs/safetensors, "Format".
"""

import json
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from functrain.checkpoint import arrays
from functrain.checkpoint.files import write_atomically
from functrain.checkpoint.uninterrupted import uninterrupted
from functrain.foundation.errors import CheckpointError
from functrain.foundation.regular_files import open_regular

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16,
    "I32": torch.int32, "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_MOST_DIMENSIONS, _LARGEST_SIZE = 64, 2**63 - 1  # of a tensor of torch
_LARGEST_HEADER = 100_000_000  # the format's own bound
_METADATA = "__metadata__"


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Args:
        path: the file.

    Returns:
        Tensors on the CPU by name, each in memory of its own.

    Raises:
        CheckpointError: the file cannot be read or is not in the format.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     write_safetensors({"w": torch.arange(3)}, f"{directory}/model.safetensors")
        ...     read_safetensors(f"{directory}/model.safetensors")
        {'w': tensor([0, 1, 2])}
    """
    return uninterrupted(partial(_read, path))


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    try:
        with open_regular(path) as file:
            return tensors_in(file, os.fstat(file.fileno()).st_size, path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def tensors_in(file: IO[bytes], size: int, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of an open file.

    Args:
        file: at its beginning; it can seek.
        size: its bytes.
        path: for the message of an error.

    Raises:
        CheckpointError: it is not in the format.
    """
    try:
        header = _read_header(file, size)
        start = file.tell()
        tensors = {}
        for name, (dtype, shape, begin, end) in _layout(header, size - start).items():
            tensor = torch.empty(shape, dtype=dtype)
            if end > begin:
                file.seek(start + begin)
                file.readinto(arrays.raw_bytes(tensor))  # type: ignore[attr-defined]
            tensors[name] = tensor
        return tensors
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is damaged: {error}") from error


def write_safetensors(
    tensors: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str] = {}
) -> None:
    """Write tensors to a safetensors file; it appears when it is complete.

    Args:
        tensors: by name. Each is written for itself: ties are lost.
        path: the file; an existing one is replaced.
        metadata: strings by name, for the header.

    Raises:
        TypeError: the format has no such dtype.
        CheckpointError: the file cannot be written.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _CODES:
            allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _CODES)
            raise TypeError(f"tensor {name} is {tensor.dtype}: safetensors holds {allowed}")
    # Large elements first, so that every tensor is aligned to its element.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        tensor = tensors[name]
        end = offset + tensor.nbytes
        places = {"shape": list(tensor.shape), "data_offsets": [offset, end]}
        header[name] = {"dtype": _CODES[tensor.dtype], **places}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with write_atomically(Path(path)) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(arrays.raw_bytes(tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous()))


def _read_header(file: Any, size: int) -> dict[str, Any]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LARGEST_HEADER):
        raise ValueError(f"its header would have {length} bytes, the file has {size}")
    header = json.loads(file.read(length), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop(_METADATA, None)
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header has the same name twice")
    return found


def _layout(header: dict[str, Any], size: int) -> dict[str, tuple[torch.dtype, list[int], int, int]]:
    """Where each tensor is: in order and without holes, which bounds what is allocated by the file's size."""
    found = {}
    expected = 0
    for name, record in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (begin, end) = _DTYPES[record["dtype"]], record["shape"], record["data_offsets"]
        if any(type(number) is not int or not 0 <= number <= _LARGEST_SIZE for number in (*shape, begin, end)):
            raise ValueError(f"tensor {name!r} has a size or place that is not a natural number of 63 bits")
        if len(shape) > _MOST_DIMENSIONS or math.prod(max(size, 1) for size in shape) > _LARGEST_SIZE:
            raise ValueError(f"tensor {name!r} has {len(shape)} dimensions whose product no tensor can have")
        if begin != expected or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"tensor {name!r} of shape {shape} cannot be bytes {begin} to {end}")
        found[name] = dtype, shape, begin, end
        expected = end
    if expected != size:
        raise ValueError(f"its tensors have {expected} bytes, the file holds {size}")
    return {name: found[name] for name in header}  # in the file's own order
