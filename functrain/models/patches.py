"""Images as patches and back, and where the patches stand.

Shapes: B examples, C channels, H and W pixels, S patches of an image, K of them, D features of a patch.
"""

import torch
from torch import Tensor

from functrain.models.checks import at_least
from functrain.models.transformer import sinusoids


def patches(images: Tensor, side: int) -> Tensor:
    """Cut images into patches, in rows from the upper left.

    Args:
        images: `[B, C, H, W]`.
        side: of a patch; H and W are multiples of it.

    Returns:
        `[B, S, C * side * side]`.

    Example:
        >>> patches(torch.arange(16.0).view(1, 1, 4, 4), 2)[0, 1]
        tensor([2., 3., 6., 7.])
    """
    cut = images.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [B, C, rows, side, columns, side]
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def images_from(pixels: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Put patches together again; `patches` cuts.

    Args:
        pixels: `[B, S, C * side * side]`.
        grid: patches in a column and in a row of an image.
        side: of a patch.

    Returns:
        `[B, C, H, W]`.

    Example:
        >>> images = torch.randn(2, 3, 4, 6)
        >>> torch.equal(images_from(patches(images, 2), (2, 3), 2), images)
        True
    """
    cut = pixels.unflatten(2, (-1, side, side)).unflatten(1, grid)  # [B, rows, columns, C, side, side]
    return cut.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def grid_positions(grid: tuple[int, int], like: Tensor) -> Tensor:
    """Positions in a grid: half of the features tell the row, half the column.

    They are computed in each pass. As a buffer, they would tie an encoder's checkpoints to one size of images.

    Args:
        grid: number of rows and columns.
        like: a tensor `[D]` with the width, dtype and device of the positions.

    Returns:
        `[rows * columns, D]`.

    Example:
        >>> grid_positions((2, 3), torch.zeros(8)).shape
        torch.Size([6, 8])
    """
    width = len(like)
    rows, columns = (sinusoids(torch.arange(count, device=like.device), width // 2) for count in grid)
    both = torch.cat([rows[:, None].expand(*grid, -1), columns[None].expand(*grid, -1)], dim=-1)
    return both.flatten(0, 1).to(like.dtype)


def require_multiple_of_4(width: int) -> None:
    """Refuse a width that rows and columns, sines and cosines cannot share.

    Raises:
        ValueError: for such a width.
    """
    at_least(1, width=width)
    if width % 4:
        raise ValueError(f"a width must be a multiple of 4 for positions in images, got {width!r}")


def chosen(features: Tensor, places: Tensor) -> Tensor:
    """The tokens `[B, K, D]` at places `[B, K]` of tokens `[B, S, D]`."""
    return features.gather(1, places.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
