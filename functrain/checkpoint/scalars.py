"""Python scalars <-> JSON, exactly.

JSON alone would lose NaN and infinity, round integers beyond 53 bits in other readers, and refuse
integers of more than 4300 digits. So integers beyond 53 bits are written in hexadecimal, and
floats that are not finite as the hexadecimal of their 64 bits.
"""

import math
import struct
from typing import Any

Scalar = bool | int | float | str | None

SCALAR_TYPES: tuple[type, ...] = (bool, int, float, str, type(None))
_EXACT_IN_JSON = 2**53


def scalar_type(value: Scalar) -> str:
    """The name of a scalar's type: bool, int, float, str or None."""
    return "None" if value is None else type(value).__name__


def encode(value: Scalar) -> Any:
    """A JSON value from which `decode` makes the same scalar, of the same type.

    Example:
        >>> encode(3), encode(2**64), encode(float("inf")), encode(None)
        (3, {'int': '0x10000000000000000'}, {'float': '7ff0000000000000'}, None)
    """
    if type(value) is int and abs(value) > _EXACT_IN_JSON:
        return {"int": hex(value)}
    if type(value) is float and not math.isfinite(value):
        return {"float": struct.pack(">d", value).hex()}
    return value


def decode(value: Any) -> Scalar:
    """The inverse of `encode`.

    Raises:
        ValueError: `value` is not what `encode` writes.

    Example:
        >>> decode(encode(-(2**64))) == -(2**64), decode(encode(0.1)), decode(encode(-0.0))
        (True, 0.1, -0.0)
    """
    if isinstance(value, dict) and len(value) == 1:
        kind, text = next(iter(value.items()))
        if kind == "int":
            return int(text, 16)
        if kind == "float":
            (number,) = struct.unpack(">d", bytes.fromhex(text))
            return float(number)
    if type(value) in SCALAR_TYPES:
        scalar: Scalar = value
        return scalar
    raise ValueError(f"not a scalar: {value!r}")
