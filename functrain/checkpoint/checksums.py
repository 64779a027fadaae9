"""The CRC-32 of a whole from those of its parts, which several processes have taken.

A CRC is the remainder of a polynomial over GF(2). Bytes behind a part multiply its polynomial by a power of x, so the
remainder of two parts one after the other is that product and the second one's remainder, added. Imports nothing of
functrain.
"""

from collections.abc import Iterable
from functools import lru_cache

_POLYNOMIAL = 0xEDB88320  # of CRC-32, with the coefficient of x^0 in the highest bit
_ONE, _X8 = 1 << 31, 1 << 23


def joined(parts: Iterable[tuple[int, int]]) -> int:
    """The CRC-32 of parts one after the other.

    Args:
        parts: of each its CRC-32 and its bytes.

    Example:
        >>> import zlib
        >>> joined([(zlib.crc32(b"one"), 3), (zlib.crc32(b""), 0), (zlib.crc32(b" two"), 4)]) == zlib.crc32(b"one two")
        True
    """
    whole = 0
    for crc32, nbytes in parts:
        whole = _product(_power(nbytes), whole) ^ crc32
    return whole


def _product(left: int, right: int) -> int:
    """Of two polynomials, reduced."""
    total = 0
    for place in range(31, -1, -1):
        if left >> place & 1:
            total ^= right
        right = right >> 1 ^ (_POLYNOMIAL if right & 1 else 0)
    return total


@lru_cache(maxsize=4096)
def _power(nbytes: int) -> int:
    """x to the bits of so many bytes, reduced."""
    found, square = _ONE, _X8
    while nbytes:
        if nbytes & 1:
            found = _product(square, found)
        square = _product(square, square)
        nbytes >>= 1
    return found
