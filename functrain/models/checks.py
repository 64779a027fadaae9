"""Checks of the arguments and inputs of networks."""

from collections.abc import Sequence

from torch import Tensor

from functrain.foundation.numbers import is_integer, is_number

Size = int | tuple[int, int]  # of images: height and width, or one number for both


def at_least(lowest: int, **values: int) -> None:
    """Refuse what is not a whole number of at least `lowest`.

    Raises:
        ValueError: for such a value; the message names it.

    Example:
        >>> at_least(1, width=64, heads=4)
        >>> at_least(1, width=0)
        Traceback (most recent call last):
        ...
        ValueError: width must be at least 1, got 0
    """
    for name, value in values.items():
        if not is_integer(value):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}, got {value!r}")


def sizes_at_least(lowest: int, **values: Sequence[int]) -> None:
    """Refuse what is not a list of one or more whole numbers of at least `lowest`.

    Raises:
        ValueError: for such a value; the message names it.

    Example:
        >>> sizes_at_least(1, widths=(32, 0))
        Traceback (most recent call last):
        ...
        ValueError: widths must be one or more whole numbers of at least 1, got (32, 0)
    """
    for name, value in values.items():
        listed = isinstance(value, (tuple, list))
        if not listed or not value or not all(is_integer(each, lowest) for each in value):
            raise ValueError(f"{name} must be one or more whole numbers of at least {lowest}, got {value!r}")


def share(**values: float) -> None:
    """Refuse what is not a number from 0 to below 1, such as a dropout.

    Raises:
        ValueError: for such a value; the message names it.

    Example:
        >>> share(dropout=1.0)
        Traceback (most recent call last):
        ...
        ValueError: dropout must be at least 0 and less than 1, got 1.0
    """
    for name, value in values.items():
        if not is_number(value) or not 0.0 <= value < 1.0:
            raise ValueError(f"{name} must be at least 0 and less than 1, got {value!r}")


def multiple_of_heads(width: int, heads: int) -> None:
    """Refuse a width that the heads of attention cannot share.

    Raises:
        ValueError: for such a width.

    Example:
        >>> multiple_of_heads(10, 4)
        Traceback (most recent call last):
        ...
        ValueError: width must be a multiple of heads, got 10 and 4
    """
    at_least(1, width=width, heads=heads)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, got {width!r} and {heads!r}")


def image_size(size: Size) -> tuple[int, int]:
    """Height and width; one number stands for both.

    Raises:
        ValueError: if they are not whole numbers of at least 1.

    Example:
        >>> image_size(28)
        (28, 28)
    """
    both = (size, size) if not isinstance(size, (tuple, list)) else tuple(size)
    if len(both) != 2 or not all(is_integer(each, 1) for each in both):
        raise ValueError(f"size must be a whole number of at least 1, or two for height and width; got {size!r}")
    return both


def images_of(images: Tensor, channels: int, model: str, size: tuple[int, int] | None = None) -> None:
    """Refuse what are not images `[B, channels, H, W]`, of one size if there is one.

    Raises:
        ValueError: for other shapes; the message names the model and its parameter.
    """
    height, width = ("H", "W") if size is None else size
    if images.ndim != 4 or images.shape[1] != channels or (size is not None and tuple(images.shape[2:]) != size):
        what = "in_channels is their number of channels" + ("" if size is None else ", size their height and width")
        raise ValueError(
            f"{model} takes images of shape [B, {channels}, {height}, {width}], got {list(images.shape)}; its "
            f"parameter {what}"
        )
