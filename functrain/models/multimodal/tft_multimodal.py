"""Spectra and a table in one classifier.

Shapes: B examples, S scans, L bands, D features of the table, E and T features of the two embeddings, F fused features,
C classes, N heads.
"""

import torch
from torch import Tensor, nn

from functrain.models.attention import kept, masked_mean
from functrain.models.checks import at_least
from functrain.models.multimodal.fusion import AuxiliaryHeads, CrossModalAttention, GatedFusion
from functrain.models.multimodal.packing import pack
from functrain.models.multimodal.spectra_encoder import SpectraTFTEncoder
from functrain.models.multimodal.table_encoder import TabularStaticEncoder

Outputs = dict[str, Tensor | dict[str, Tensor]]


class TFTMultimodal(nn.Module):
    """Classifies examples by spectra of several scans and a row of a table.

    Each modality is embedded (`SpectraTFTEncoder`, `TabularStaticEncoder`); scans and features of the table attend to
    each other (`CrossModalAttention`); a gate weighs the spectra's embedding (`GatedFusion`); all of it is fused.
    Each embedding also gets logits of its own, for auxiliary losses.

    A scan that the mask leaves out and a NaN in the table reach no output and get the gradient 0. A missing modality
    (no scan, a row of NaN) has the embedding 0 and takes no part in the attention.

    Args:
        tab_dim: features of the table.
        spec_len: bands of a scan.
        spec_emb: features of the spectra's embedding.
        tab_emb: features of the table's embedding.
        num_classes: logits.
        fusion_dim: features of the fused embedding.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.
        attention_weights: return attention weights and gates too, unless a call says otherwise.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> model = TFTMultimodal(tab_dim=4, spec_len=100, spec_emb=16, tab_emb=8, num_classes=3, fusion_dim=12)
        >>> found = model(torch.randn(5, 2, 100), torch.ones(5, 2, dtype=torch.bool), torch.randn(5, 4))
        >>> found["logits"].shape, found["embedding"].shape
        (torch.Size([5, 3]), torch.Size([5, 12]))
    """

    def __init__(
        self,
        tab_dim: int,
        spec_len: int = 1024,
        spec_emb: int = 256,
        tab_emb: int = 128,
        num_classes: int = 2,
        fusion_dim: int = 256,
        dropout: float = 0.1,
        *,
        attention_weights: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, num_classes=num_classes, fusion_dim=fusion_dim)
        self.attention_weights = attention_weights
        self.spec_encoder = SpectraTFTEncoder(spec_len, spec_emb, dropout=dropout)
        self.tab_encoder = TabularStaticEncoder(tab_dim, tab_emb, dropout=dropout)
        self.cross_attention = CrossModalAttention(spec_emb, tab_emb, fusion_dim, dropout=dropout)
        self.gate = GatedFusion(spec_emb, tab_emb)
        self.fusion = nn.Sequential(
            *(nn.Linear(spec_emb + tab_emb + 2 * fusion_dim, fusion_dim), nn.LayerNorm(fusion_dim), nn.GELU()),
            *(nn.Dropout(dropout), nn.Linear(fusion_dim, fusion_dim), nn.LayerNorm(fusion_dim)),
        )
        self.classifier = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(fusion_dim, num_classes))
        self.auxiliary = AuxiliaryHeads(spec_emb, tab_emb, num_classes, fusion_dim)

    def forward(
        self,
        spectra: Tensor,
        mask: Tensor | None = None,
        tabular: Tensor | None = None,
        attention_weights: bool | None = None,
    ) -> Outputs:
        """Classify examples.

        Args:
            spectra: floating `[B, S, L]`.
            mask: bool `[B, S]`, True for scans that there are; None: all.
            tabular: floating `[B, D]`, NaN where a value is missing; None: no table.
            attention_weights: return attention weights and gates too; None: as the model was made.

        Returns:
            "embedding" `[B, F]`, "logits" `[B, C]`, "aux_logits_spec" and "aux_logits_tab" `[B, C]`, "spec_embedding"
            and "gated_spec" `[B, E]`, "tab_embedding" `[B, T]`; "spec_projection" and "tab_projection" `[B, F]`, by
            which a contrastive loss compares the modalities. On request "attention_weights" by name, whose last
            dimension sums to 1, or is 0 where there is nothing to attend to: "bands" `[B, S, P]` at P places along the
            bands, "scans" `[B, S]`, "spec_to_tab" `[B, N, S, D]`, "tab_to_spec" `[B, N, D, S]`; and "gates":
            "fusion" `[B, E]` and "features" `[B, D]`.

        Raises:
            ValueError: for other shapes.
        """
        packed = pack(spectra, mask, self.spec_encoder.spec_len)
        spec = self.spec_encoder(packed.scans, packed.mask)
        if tabular is None:
            tabular = spectra.new_full((len(spectra), self.tab_encoder.tab_dim), float("nan"))
        if len(tabular) != len(spectra):
            raise ValueError(f"spectra are of {len(spectra)} examples, and the table has {len(tabular)} rows")
        tab = self.tab_encoder(tabular)
        crossed = self.cross_attention(spec["tokens"], tab["tokens"], spec["mask"], tab["mask"])
        gated, gate = self.gate(spec["embedding"], tab["embedding"])
        parts = [masked_mean(crossed.spec, spec["mask"]), masked_mean(crossed.tab, tab["mask"])]
        embedding = self.fusion(torch.cat([gated, tab["embedding"], *parts], dim=1))
        found: Outputs = {
            "embedding": embedding,
            "logits": self.classifier(embedding),
            **self.auxiliary(spec["embedding"], tab["embedding"]),
            "spec_embedding": spec["embedding"],
            "tab_embedding": tab["embedding"],
            "gated_spec": gated,
        }
        if self.attention_weights if attention_weights is None else attention_weights:
            found["attention_weights"] = {
                "bands": packed.unpacked(spec["band_attention"]),
                "scans": packed.unpacked(spec["scan_attention"]),
                "spec_to_tab": packed.unpacked(crossed.spec_to_tab.transpose(1, 2)).transpose(1, 2),
                "tab_to_spec": packed.unpacked(crossed.tab_to_spec.movedim(3, 1)).movedim(1, 3),
            }
            found["gates"] = {"fusion": kept(gate, spec["mask"].any(1)), "features": tab["feature_gate"]}
        return found
