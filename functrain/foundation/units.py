"""Large numbers with their units, for people."""

_PREFIXES = (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")


def size(nbytes: int) -> str:
    """A number of bytes.

    Example:
        >>> size(300), size(123_456), size(5_000_000)
        ('300 B', '123.5 kB', '5.0 MB')
    """
    for factor, prefix in _PREFIXES:
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {prefix}B"
    return f"{nbytes} B"


def operations(flops: int) -> str:
    """A number of operations.

    Example:
        >>> operations(1280), operations(259_840_000), operations(12)
        ('1.28 kFLOP', '260 MFLOP', '12 FLOP')
    """
    for factor, prefix in _PREFIXES:
        if flops >= factor:
            return f"{flops / factor:.3g} {prefix}FLOP"
    return f"{flops} FLOP"


def seconds(time: float) -> str:
    """A short time.

    Example:
        >>> seconds(0.0123), seconds(4.2e-5), seconds(12), seconds(0)
        ('12.3 ms', '42 us', '12 s', '0 us')
    """
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if time >= factor:
            return f"{time / factor:.3g} {unit}"
    return f"{time * 1e6:.3g} us"
