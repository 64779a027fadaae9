"""The encoder of spectra: several scans of many bands become one embedding.

Shapes: B examples, S scans, L bands, P places along the bands, C channels of all convolutions, H heads, E features.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from functrain.models.attention import AttentionPooling, kept
from functrain.models.checks import at_least, share, sizes_at_least
from functrain.models.multimodal.heads import heads_of
from functrain.models.multimodal.packing import pack
from functrain.models.transformer import TransformerBlock, sinusoids

PLACES = 128  # along the bands, at which attention looks at the convolutions


class SpectraTFTEncoder(nn.Module):
    """Embeds spectra of several scans: convolutions over bands, a transformer over scans, attention pooling.

    A scan becomes a token: a linear projection of the whole spectrum, plus the features of convolutions of several
    widths, which attention pools over the bands. A transformer mixes the tokens in the order of the scans, and
    attention pools them.

    The mask says which scans there are. What is in the other ones (NaN, say) changes no bit of the outputs and gets the
    gradient 0, and where they stand among the scans changes no bit either. An example without any scan has the
    embedding 0.

    Args:
        spec_len: bands of a scan.
        spec_emb: features of the embedding.
        num_classes: logits of a linear head on the embedding; None: no head.
        layers: blocks of the transformer.
        heads: of attention; None: the most of 8, 4, 2 and 1 that divide `spec_emb`.
        kernel_sizes: of the convolutions, in bands, odd.
        channels: of each convolution.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> encoder = SpectraTFTEncoder(spec_len=100, spec_emb=16)
        >>> mask = torch.tensor([[True, True, False], [True, False, False]])
        >>> encoder(torch.randn(2, 3, 100), mask)["embedding"].shape
        torch.Size([2, 16])

    References:
        Lim, Arik, Loeff and Pfister, Temporal Fusion Transformers for Interpretable Multi-horizon Time Series
        Forecasting, 2021.
    """

    def __init__(
        self,
        spec_len: int,
        spec_emb: int = 256,
        num_classes: int | None = None,
        *,
        layers: int = 2,
        heads: int | None = None,
        kernel_sizes: Sequence[int] = (3, 7, 15),
        channels: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        at_least(1, spec_len=spec_len, spec_emb=spec_emb, layers=layers, channels=channels)
        share(dropout=dropout)
        heads = heads_of(spec_emb, heads)
        self.spec_len = spec_len
        self.whole = nn.Linear(spec_len, spec_emb)
        self.bands = _Bands(spec_len, spec_emb, kernel_sizes, channels, dropout)
        self.blocks = nn.ModuleList(TransformerBlock(spec_emb, heads, dropout=dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(spec_emb)
        self.pool = AttentionPooling(spec_emb)
        self.head = None if num_classes is None else nn.Linear(spec_emb, num_classes)

    def forward(self, spectra: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Embed spectra.

        Args:
            spectra: floating `[B, S, L]`.
            mask: bool `[B, S]`, True for scans that there are; None: all.

        Returns:
            "embedding" `[B, E]`; "tokens" `[B, S, E]` and "mask" `[B, S]` of the scans; "scan_attention" `[B, S]` and
            "band_attention" `[B, S, P]`, the weights of the poolings, which are 0 for scans that there are not; with a
            head "logits".
        """
        packed = pack(spectra, mask, self.spec_len)
        features, bands = self.bands(packed.scans)
        tokens = self.whole(packed.scans) + features
        count, width = tokens.shape[1:]
        places = sinusoids(torch.arange(count, device=tokens.device), width + width % 2)[:, :width]
        tokens = tokens + places.to(tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, packed.mask).features
        tokens = kept(self.norm(tokens), packed.mask)
        embedding, weights = self.pool(tokens, packed.mask)
        found = {
            "embedding": embedding,
            "tokens": packed.unpacked(tokens),
            "mask": packed.unpacked(packed.mask),
            "scan_attention": packed.unpacked(weights),
            "band_attention": packed.unpacked(kept(bands, packed.mask)),
        }
        return found if self.head is None else {**found, "logits": self.head(embedding)}


class _Bands(nn.Module):
    """Convolutions of several widths over the bands, pooled by attention that knows the place along the bands."""

    def __init__(self, length: int, width: int, kernel_sizes: Sequence[int], channels: int, dropout: float) -> None:
        super().__init__()
        sizes_at_least(1, kernel_sizes=kernel_sizes)
        if any(size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd, so that a band stays in the middle; got {kernel_sizes!r}")
        self.convolutions = nn.ModuleList(nn.Conv1d(1, channels, size, padding=size // 2) for size in kernel_sizes)
        self.window = math.ceil(length / PLACES)
        total = channels * len(kernel_sizes)
        self.places = nn.Parameter(torch.randn(math.ceil(length / self.window), total) * 0.02)
        self.norm = nn.LayerNorm(total)
        self.score = nn.Linear(total, 1)
        self.dropout = nn.Dropout(dropout)
        self.mixed = nn.Linear(total, width)

    def forward(self, scans: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[B, S, E]` of scans `[B, S, L]`, and the weights `[B, S, P]` of the places."""
        flat = scans.flatten(0, 1).unsqueeze(1)
        found = torch.cat([F.gelu(convolution(flat)) for convolution in self.convolutions], dim=1)
        pooled = F.avg_pool1d(found, self.window, ceil_mode=True).transpose(1, 2)  # [B S, P, C]
        features = self.norm(pooled + self.places)
        weights = self.score(features).squeeze(-1).softmax(-1)
        mean = (weights.unsqueeze(1) @ features).squeeze(1)
        return self.mixed(self.dropout(mean)).unflatten(0, scans.shape[:2]), weights.unflatten(0, scans.shape[:2])
