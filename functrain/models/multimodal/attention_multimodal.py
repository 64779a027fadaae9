"""A classifier over the embeddings of two encoders, which may be anybody's.

Shapes: B examples, E and T features of the two embeddings, F fused features, C classes.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from functrain.models.attention import as_mask, kept, masked_mean
from functrain.models.checks import at_least, share, sizes_at_least
from functrain.models.multimodal.fusion import AuxiliaryHeads, CrossModalAttention
from functrain.models.multimodal.spectra_encoder import SpectraTFTEncoder
from functrain.models.multimodal.table_encoder import TabularStaticEncoder
from functrain.models.multimodal.tft_multimodal import Outputs

FUSIONS = ("enhanced_cross", "concat")


class AttentionMultimodal(nn.Module):
    """Classifies examples by what two encoders return for them: `{"embedding": ..., "logits": ...}` each.

    An encoder may also return "tokens" `[B, S, features]` for attention to look at, and a "mask": `[B, S]` of the
    tokens, or `[B]`, whether the example has this modality. A missing modality counts as the embedding 0.

    | fusion_type | the fused embedding |
    |---|---|
    | "enhanced_cross" | `[B, fusion_dim]`, of both embeddings and of what each modality sees in the other |
    | "concat" | `[B, E + T]`, both embeddings |

    Args:
        spec_embedding_dim: E, features of the first encoder's embedding and tokens.
        tab_embedding_dim: T, likewise of the second one's.
        num_classes: logits.
        fusion_type: see above.
        use_auxiliary: return logits and projections of each embedding alone, for auxiliary and contrastive losses.
        hidden_dims: features of the classifier's hidden layers.
        fusion_dim: of "enhanced_cross", and of the projections.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.
        attention_weights: with "enhanced_cross", return attention weights too, unless a call says otherwise.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> model = AttentionMultimodal(16, 8, num_classes=3, hidden_dims=(32,), fusion_dim=12)
        >>> found = model({"embedding": torch.randn(5, 16)}, {"embedding": torch.randn(5, 8)})
        >>> found["logits"].shape, found["aux_logits_spec"].shape
        (torch.Size([5, 3]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        spec_embedding_dim: int = 256,
        tab_embedding_dim: int = 128,
        num_classes: int = 2,
        fusion_type: Literal["enhanced_cross", "concat"] = "enhanced_cross",
        use_auxiliary: bool = True,
        hidden_dims: Sequence[int] = (512, 256, 128),
        *,
        fusion_dim: int = 256,
        dropout: float = 0.1,
        attention_weights: bool = False,
    ) -> None:
        super().__init__()
        if fusion_type not in FUSIONS:
            raise ValueError(f"fusion_type must be one of {', '.join(FUSIONS)}; got {fusion_type!r}")
        if attention_weights and fusion_type == "concat":
            raise ValueError("fusion_type='concat' has no attention to return; leave attention_weights out")
        at_least(1, num_classes=num_classes, fusion_dim=fusion_dim)
        if hidden_dims:
            sizes_at_least(1, hidden_dims=hidden_dims)
        share(dropout=dropout)
        both = spec_embedding_dim + tab_embedding_dim
        self.dims, self.attention_weights = (spec_embedding_dim, tab_embedding_dim), attention_weights
        self.cross_attention = self.fusion = None
        fused = both
        if fusion_type == "enhanced_cross":
            fused = fusion_dim
            self.cross_attention = CrossModalAttention(*self.dims, fusion_dim, dropout=dropout)
            self.fusion = nn.Sequential(nn.Linear(both + 2 * fusion_dim, fusion_dim), nn.LayerNorm(fusion_dim))
        self.classifier = _classifier([fused, *hidden_dims], num_classes, dropout)
        self.auxiliary = AuxiliaryHeads(*self.dims, num_classes, fusion_dim) if use_auxiliary else None

    def forward(
        self, spec: Mapping[str, Tensor], tab: Mapping[str, Tensor], attention_weights: bool | None = None
    ) -> Outputs:
        """Classify examples.

        Args:
            spec: of the first encoder: "embedding" `[B, E]`, and what it may have more of (see above).
            tab: of the second one: "embedding" `[B, T]`.
            attention_weights: return attention weights too; None: as the model was made.

        Returns:
            "embedding", "logits" `[B, C]`, "spec_embedding" `[B, E]`, "tab_embedding" `[B, T]`; with auxiliary heads
            "aux_logits_spec" and "aux_logits_tab" `[B, C]`, "spec_projection" and "tab_projection" `[B, fusion_dim]`;
            the encoders' logits, where they give some, as "spec_logits" and "tab_logits"; on request
            "attention_weights": "spec_to_tab" and "tab_to_spec".

        Raises:
            ValueError: for embeddings of other shapes.
        """
        one, other = _embedding(spec, "spec", self.dims[0]), _embedding(tab, "tab", self.dims[1])
        embedding, weights = self._fused(one, other, spec, tab)
        found: Outputs = {
            "embedding": embedding,
            "logits": self.classifier(embedding),
            "spec_embedding": one,
            "tab_embedding": other,
        }
        if self.auxiliary is not None:
            found |= self.auxiliary(one, other)
        found |= {f"{name}_logits": each["logits"] for name, each in (("spec", spec), ("tab", tab)) if "logits" in each}
        if self.attention_weights if attention_weights is None else attention_weights:
            found["attention_weights"] = weights
        return found

    def _fused(
        self, one: Tensor, other: Tensor, spec: Mapping[str, Tensor], tab: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.cross_attention is None or self.fusion is None:
            return torch.cat([one, other], dim=1), {}
        (scans, scan_mask), (rows, row_mask) = _tokens(spec, one), _tokens(tab, other)
        crossed = self.cross_attention(scans, rows, scan_mask, row_mask)
        parts = [masked_mean(crossed.spec, scan_mask), masked_mean(crossed.tab, row_mask)]
        weights = {"spec_to_tab": crossed.spec_to_tab, "tab_to_spec": crossed.tab_to_spec}
        return self.fusion(torch.cat([one, other, *parts], dim=1)), weights


class EncodedMultimodal(nn.Module):
    """Two encoders and a classifier over their embeddings, to be trained as one model.

    Args:
        spec_encoder: called as `(spectra, mask)`.
        tab_encoder: called as `(tabular)`.
        fusion: called with what the encoders return, such as an `AttentionMultimodal`.

    Example:
        >>> fusion = AttentionMultimodal(16, 8, num_classes=3, hidden_dims=(32,), fusion_dim=12)
        >>> model = EncodedMultimodal(SpectraTFTEncoder(100, 16), TabularStaticEncoder(4, 8), fusion)
        >>> model(torch.randn(5, 2, 100), None, torch.randn(5, 4))["logits"].shape
        torch.Size([5, 3])
    """

    def __init__(self, spec_encoder: nn.Module, tab_encoder: nn.Module, fusion: nn.Module) -> None:
        super().__init__()
        self.spec_encoder, self.tab_encoder, self.fusion = spec_encoder, tab_encoder, fusion

    def forward(self, spectra: Tensor, mask: Tensor | None, tabular: Tensor) -> Any:
        """What the classifier returns.

        Args:
            spectra: floating `[B, S, L]`.
            mask: bool `[B, S]`, True for scans that there are; None: all.
            tabular: floating `[B, D]`.
        """
        return self.fusion(self.spec_encoder(spectra, mask), self.tab_encoder(tabular))


def attention_multimodal(
    tab_dim: int,
    spec_len: int = 1024,
    spec_emb: int = 256,
    tab_emb: int = 128,
    num_classes: int = 2,
    fusion_type: Literal["enhanced_cross", "concat"] = "enhanced_cross",
    use_auxiliary: bool = True,
    hidden_dims: Sequence[int] = (512, 256, 128),
    *,
    fusion_dim: int = 256,
    dropout: float = 0.1,
    attention_weights: bool = False,
) -> EncodedMultimodal:
    """An `AttentionMultimodal` over a `SpectraTFTEncoder` and a `TabularStaticEncoder`, as one model.

    Args:
        tab_dim: features of the table.
        spec_len: bands of a scan.
        spec_emb: features of the spectra's embedding.
        tab_emb: features of the table's embedding.
        num_classes: logits.
        fusion_type: "enhanced_cross" or "concat".
        use_auxiliary: return logits and projections of each embedding alone, for auxiliary and contrastive losses.
        hidden_dims: features of the classifier's hidden layers.
        fusion_dim: of "enhanced_cross", and of the projections.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.
        attention_weights: with "enhanced_cross", return attention weights too.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> model = attention_multimodal(4, 100, 16, 8, fusion_type="concat", hidden_dims=(32,))
        >>> model(torch.randn(5, 2, 100), None, torch.randn(5, 4))["embedding"].shape
        torch.Size([5, 24])
    """
    return EncodedMultimodal(
        SpectraTFTEncoder(spec_len, spec_emb, dropout=dropout),
        TabularStaticEncoder(tab_dim, tab_emb, dropout=dropout),
        AttentionMultimodal(
            spec_emb,
            tab_emb,
            num_classes,
            fusion_type,
            use_auxiliary,
            hidden_dims,
            fusion_dim=fusion_dim,
            dropout=dropout,
            attention_weights=attention_weights,
        ),
    )


def _classifier(widths: Sequence[int], num_classes: int, dropout: float) -> nn.Sequential:
    hidden = [
        layer
        for before, behind in pairwise(widths)
        for layer in (nn.Linear(before, behind), nn.LayerNorm(behind), nn.GELU(), nn.Dropout(dropout))
    ]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], num_classes))


def _embedding(found: Mapping[str, Tensor], name: str, width: int) -> Tensor:
    """The embedding of a modality; 0 where the modality is missing."""
    embedding = found.get("embedding") if isinstance(found, Mapping) else None
    if not isinstance(embedding, Tensor) or embedding.ndim != 2 or embedding.shape[1] != width:
        given = type(found).__name__ if embedding is None else list(embedding.shape)
        raise ValueError(
            f"{name} is what an encoder returns, a mapping with 'embedding' [B, {width}] ({name}_embedding_dim); got "
            f"{given}"
        )
    present = _present(found)
    return embedding if present is None else kept(embedding, present)


def _present(found: Mapping[str, Tensor]) -> Tensor | None:
    """Whether each example has the modality, bool `[B]`; None: all do."""
    mask = found.get("mask")
    if mask is None:
        return None
    return mask.bool() if mask.ndim == 1 else mask.bool().any(1)


def _tokens(found: Mapping[str, Tensor], embedding: Tensor) -> tuple[Tensor, Tensor | None]:
    """What attention looks at: the tokens of an encoder, or else its embedding as the only one."""
    if "tokens" in found and (found.get("mask") is None or found["mask"].ndim == 2):
        return found["tokens"], as_mask(found.get("mask"), found["tokens"].shape[:2])
    tokens, present = found.get("tokens", embedding.unsqueeze(1)), _present(found)
    return tokens, None if present is None else present.unsqueeze(1).expand(tokens.shape[:2])
