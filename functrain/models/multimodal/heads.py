"""How many heads attention has by default."""

from functrain.models.checks import multiple_of_heads


def heads_of(width: int, heads: int | None) -> int:
    """The given number of heads; None: the most of 8, 4, 2 and 1 that share the width.

    Raises:
        ValueError: if the given number of heads cannot share the width.

    Example:
        >>> heads_of(12, None), heads_of(12, 3)
        (4, 3)
    """
    if heads is None:
        return next(count for count in (8, 4, 2, 1) if width % count == 0)
    multiple_of_heads(width, heads)
    return heads
