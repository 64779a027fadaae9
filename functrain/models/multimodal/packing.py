"""Scans that there are, before those that there are not."""

from typing import NamedTuple

import torch
from torch import Tensor

from functrain.models.attention import as_mask, kept


class Packed(NamedTuple):
    """Spectra whose scans stand before the padding, each example's in their order.

    Attributes:
        scans: `[B, S, L]`, 0 where there is no scan.
        mask: bool `[B, S]`.
        back: int64 `[B, S]`, the place of each scan as it was given among the packed ones.
    """

    scans: Tensor
    mask: Tensor
    back: Tensor

    def unpacked(self, values: Tensor) -> Tensor:
        """Values of the packed scans, `[B, S, ...]`, in the order in which the scans were given."""
        return values.take_along_dim(self.back.view(*self.back.shape, *[1] * (values.ndim - 2)), 1)


def pack(spectra: Tensor, mask: Tensor | None, length: int) -> Packed:
    """Put scans before padding. Where the padding stood then shows in no bit, not even by the order of a sum.

    Args:
        spectra: floating `[B, S, L]`.
        mask: `[B, S]`, True or not 0 for scans that there are; None: all.
        length: L.

    Raises:
        ValueError: for other shapes.

    Example:
        >>> spectra = torch.tensor([[[float("nan")], [1.0], [2.0]]])
        >>> packed = pack(spectra, torch.tensor([[False, True, True]]), 1)
        >>> packed.scans.flatten(), packed.unpacked(packed.scans).flatten()
        (tensor([1., 2., 0.]), tensor([0., 1., 2.]))
    """
    if spectra.ndim != 3 or spectra.shape[1] < 1 or spectra.shape[2] != length:
        raise ValueError(
            f"spectra are [B, S, L], one scan or more of L = {length} bands (spec_len); got {list(spectra.shape)}"
        )
    mask = as_mask(mask, spectra.shape[:2])
    if mask is None:
        mask = torch.ones(spectra.shape[:2], dtype=torch.bool, device=spectra.device)
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
    scans = kept(spectra, mask).take_along_dim(order.unsqueeze(-1), 1)
    return Packed(scans, mask.take_along_dim(order, 1), order.argsort(dim=1))
