"""What joins two modalities: attention of each to the other, and a gate.

Shapes: B examples, S scans or other tokens of E features, K features of a table or other tokens of T features, N heads,
F fused features.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from functrain.models.attention import MultiHeadAttention, as_mask, kept
from functrain.models.checks import at_least, share
from functrain.models.multimodal.heads import heads_of


class Crossed(NamedTuple):
    """What each modality makes of the other.

    Attributes:
        spec: `[B, S, F]`; `[B, F]` if the spectra were one vector.
        tab: `[B, K, F]`; `[B, F]` if the table was one vector.
        spec_to_tab: weights of the scans' attention to the table, `[B, N, S, K]`.
        tab_to_spec: weights of the table's attention to the scans, `[B, N, K, S]`.
    """

    spec: Tensor
    tab: Tensor
    spec_to_tab: Tensor
    tab_to_spec: Tensor


class CrossModalAttention(nn.Module):
    """Attention in both directions: scans look at the table's features, and these at the scans.

    Each side is projected to F features, attends to the other side, and is normalised with what it has seen. A token
    that the mask leaves out gives and gets nothing; a side without tokens adds 0 to the other one.

    Args:
        spec_dim: features of a token of the spectra.
        tab_dim: features of a token of the table.
        dim: features of both afterwards.
        heads: of attention; None: the most of 8, 4, 2 and 1 that share `dim`.
        dropout: share of the weights and features that is dropped in training, 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> found = CrossModalAttention(16, 8, dim=12)(torch.zeros(5, 3, 16), torch.zeros(5, 2, 8))
        >>> found.spec.shape, found.tab_to_spec.shape
        (torch.Size([5, 3, 12]), torch.Size([5, 4, 2, 3]))
    """

    def __init__(
        self, spec_dim: int, tab_dim: int, dim: int = 256, heads: int | None = None, dropout: float = 0.1
    ) -> None:
        super().__init__()
        at_least(1, spec_dim=spec_dim, tab_dim=tab_dim, dim=dim)
        share(dropout=dropout)
        heads = heads_of(dim, heads)
        self.spec, self.tab = nn.Linear(spec_dim, dim), nn.Linear(tab_dim, dim)
        self.spec_attention = MultiHeadAttention(dim, heads, dropout)
        self.tab_attention = MultiHeadAttention(dim, heads, dropout)
        self.spec_norm, self.tab_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, spec: Tensor, tab: Tensor, spec_mask: Tensor | None = None, tab_mask: Tensor | None = None
    ) -> Crossed:
        """Let each side attend to the other.

        Args:
            spec: floating `[B, S, E]`, or one vector `[B, E]`.
            tab: floating `[B, K, T]`, or one vector `[B, T]`.
            spec_mask: `[B, S]` (`[B]` of a vector), True or not 0 for tokens that there are; None: all.
            tab_mask: likewise `[B, K]`.

        Raises:
            ValueError: for masks of other shapes.
        """
        (scans, scan_mask), (rows, row_mask) = _tokens(spec, spec_mask, "spec_mask"), _tokens(tab, tab_mask, "tab_mask")
        scans, rows = self.spec(kept(scans, scan_mask)), self.tab(kept(rows, row_mask))
        to_tab = self.spec_attention(scans, rows, mask=row_mask, query_mask=scan_mask, need_weights=True)
        to_spec = self.tab_attention(rows, scans, mask=scan_mask, query_mask=row_mask, need_weights=True)
        scans = kept(self.spec_norm(scans + self.dropout(to_tab.features)), scan_mask)
        rows = kept(self.tab_norm(rows + self.dropout(to_spec.features)), row_mask)
        weights = [
            each if mask is None else torch.where(mask[:, None, :, None], each, 0.0)
            for each, mask in ((to_tab.weights, scan_mask), (to_spec.weights, row_mask))
        ]
        return Crossed(
            scans if spec.ndim == 3 else scans.squeeze(1), rows if tab.ndim == 3 else rows.squeeze(1), *weights
        )


class GatedFusion(nn.Module):
    """A gate between 0 and 1 for each feature of the spectra's embedding, which depends on both modalities.

    Args:
        spec_dim: features of the spectra's embedding.
        tab_dim: features of the table's embedding.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> gated, gate = GatedFusion(16, 8)(torch.ones(5, 16), torch.zeros(5, 8))
        >>> bool((gated == gate).all()), bool(((gate > 0) & (gate < 1)).all())
        (True, True)
    """

    def __init__(self, spec_dim: int, tab_dim: int) -> None:
        super().__init__()
        at_least(1, spec_dim=spec_dim, tab_dim=tab_dim)
        self.gate = nn.Linear(spec_dim + tab_dim, spec_dim)

    def forward(self, spec: Tensor, tab: Tensor) -> tuple[Tensor, Tensor]:
        """The gated embedding of the spectra, and the gate, `[B, E]` each.

        Args:
            spec: floating `[B, E]`.
            tab: floating `[B, T]`.
        """
        gate = self.gate(torch.cat([spec, tab], dim=1)).sigmoid()
        return gate * spec, gate


class AuxiliaryHeads(nn.Module):
    """What a multimodal classifier also says of each modality alone: logits, and a projection to compare them by.

    Args:
        spec_dim: features of the spectra's embedding.
        tab_dim: features of the table's embedding.
        num_classes: logits.
        dim: features of the projections.

    Example:
        >>> sorted(AuxiliaryHeads(16, 8, 3, 4)(torch.zeros(5, 16), torch.zeros(5, 8)))
        ['aux_logits_spec', 'aux_logits_tab', 'spec_projection', 'tab_projection']
    """

    def __init__(self, spec_dim: int, tab_dim: int, num_classes: int, dim: int) -> None:
        super().__init__()
        self.spec, self.tab = nn.Linear(spec_dim, num_classes), nn.Linear(tab_dim, num_classes)
        # Without a bias: a missing modality, whose embedding is 0, is like no other example.
        self.spec_projection = nn.Linear(spec_dim, dim, bias=False)
        self.tab_projection = nn.Linear(tab_dim, dim, bias=False)

    def forward(self, spec: Tensor, tab: Tensor) -> dict[str, Tensor]:
        """Logits `[B, C]` and projections `[B, dim]` of embeddings `[B, E]` and `[B, T]`."""
        return {
            "aux_logits_spec": self.spec(spec),
            "aux_logits_tab": self.tab(tab),
            "spec_projection": self.spec_projection(spec),
            "tab_projection": self.tab_projection(tab),
        }


def _tokens(features: Tensor, mask: Tensor | None, name: str) -> tuple[Tensor, Tensor | None]:
    """A vector as one token."""
    if features.ndim == 2:
        features, mask = features.unsqueeze(1), None if mask is None else mask.unsqueeze(-1)
    return features, as_mask(mask, features.shape[:2], name)
