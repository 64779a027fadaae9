"""torch tensors <-> NumPy arrays, bit for bit.

The arrays that reach the disk have NumPy (or ml_dtypes) types, so any reader of the format
understands them. bfloat16 and float8 go through an integer view of the same width, because
torch and NumPy do not exchange them directly.
"""

import zlib
from typing import Any

import numpy as np
import torch

# Types that torch and NumPy exchange as they are.
_SHARED = {
    name: getattr(torch, name)
    for name in (
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
        "float16", "float32", "float64", "complex64", "complex128",
    )
}  # fmt: skip
# Types that ml_dtypes gives NumPy under torch's own names, and the integer view that carries the bits.
_VIEWED = {
    name: getattr(torch, name)
    for name in (
        "bfloat16",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
    )
    if hasattr(torch, name)
}
# Types that NumPy does not have at all: stored as flat bytes, the type and shape stand in the index.
_RAW = {name: getattr(torch, name) for name in ("complex32", "float4_e2m1fn_x2") if hasattr(torch, name)}

DTYPES: dict[str, torch.dtype] = {**_SHARED, **_VIEWED, **_RAW}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: torch.dtype) -> str | None:
    """The name under which a dtype is stored; None if it cannot be stored.

    Example:
        >>> dtype_name(torch.bfloat16), dtype_name(torch.qint8)
        ('bfloat16', None)
    """
    return _NAMES.get(dtype)


def is_raw(dtype: str) -> bool:
    """Whether tensors of a dtype are stored as flat bytes."""
    return dtype in _RAW


def stored_form(dtype: str, shape: tuple[int, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The NumPy dtype and shape that a tensor has on disk."""
    if dtype in _RAW:
        return np.dtype(np.uint8), (nbytes(dtype, shape),)
    if dtype in _VIEWED:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, dtype)), shape
    return np.dtype(dtype), shape


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor."""
    count = DTYPES[dtype].itemsize
    for size in shape:
        count *= size
    return count


def dense_stride(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The strides worth storing: those of a dense tensor that is not laid out in row-major order.

    A weight in channels_last may be multiplied by another kernel than a contiguous one and round
    differently, so a bit-for-bit resume must restore the layout too. None for the ordinary layout,
    and for views with holes or overlaps, which come back contiguous.

    Example:
        >>> (
        ...     dense_stride(torch.zeros(2, 3)),
        ...     dense_stride(torch.zeros(2, 3).T),
        ...     dense_stride(torch.zeros(9)[::2]),
        ... )
        (None, (1, 3), None)
    """
    stride = tuple(tensor.stride())
    if stride == _row_major(tensor.shape) or tensor.dtype in _RAW.values():
        return None
    return stride if is_dense(tuple(tensor.shape), stride) else None


def is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether a tensor with this layout fills its memory without holes or overlaps."""
    expected = 1
    for step, size in sorted((step, size) for step, size in zip(stride, shape, strict=True) if size != 1):
        if step != expected:
            return False
        expected *= size
    return True


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A contiguous array with the tensor's bits; no copy where its memory can be used as it is.

    Args:
        tensor: on the CPU, of one of `DTYPES`.
    """
    tensor = tensor.detach()
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg().contiguous()
    name = _NAMES[tensor.dtype]
    if name in _RAW:
        return tensor.reshape(-1).view(torch.uint8).numpy()
    if name in _VIEWED:
        array = tensor.view(_carrier(tensor.dtype)).numpy()
        return array.view(stored_form(name, ())[0])
    return tensor.numpy()


def from_numpy(
    array: np.ndarray[Any, Any],
    dtype: str,
    shape: tuple[int, ...],
    stride: tuple[int, ...] | None,
    device: torch.device | str,
) -> torch.Tensor:
    """Copy an array into memory of torch's own, with the tensor's dtype, shape and strides.

    A copy although `torch.from_numpy` could share: the reader's buffers are aligned to 16 or 32
    bytes, torch's to 64, and BLAS kernels may round differently on other alignments.
    """
    result = empty(dtype, shape, stride, device)
    target = result
    if dtype in _RAW:
        target = result.reshape(-1).view(torch.uint8)
    elif dtype in _VIEWED:
        carrier = _carrier(result.dtype)
        target, array = result.view(carrier), array.view(str(carrier).removeprefix("torch."))
    target.copy_(torch.from_numpy(array if array.flags.writeable else array.copy()))
    return result


def empty(
    dtype: str, shape: tuple[int, ...], stride: tuple[int, ...] | None, device: torch.device | str
) -> torch.Tensor:
    """An uninitialised tensor."""
    return torch.empty_strided(shape, stride or _row_major(shape), dtype=DTYPES[dtype], device=device)


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, sharing its memory.

    Example:
        >>> raw_bytes(torch.tensor([1, 2], dtype=torch.uint8)).tobytes()
        b'\\x01\\x02'
    """
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data


def crc32(array: np.ndarray[Any, Any]) -> int:
    """CRC-32 of an array's bytes in row-major order."""
    return zlib.crc32(array.reshape(-1).view(np.uint8).data)


def _carrier(dtype: torch.dtype) -> torch.dtype:
    return torch.int16 if dtype.itemsize == 2 else torch.uint8


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
