"""The encoder of a table's row: a gate says how much each feature counts.

Shapes: B examples, D features of the table, T features of the embedding.
"""

import torch
from torch import Tensor, nn

from functrain.models.attention import kept
from functrain.models.checks import at_least, share


class TabularStaticEncoder(nn.Module):
    """Embeds rows of a table, with a gate between 0 and 1 for each feature that depends on the whole row.

    A NaN is a missing value: it counts as 0, the network is told that it is missing, its gate is 0, and it gets the
    gradient 0. A row of NaN is a missing modality, and has the embedding 0.

    Args:
        tab_dim: features of the table.
        tab_emb: features of the embedding.
        num_classes: logits of a linear head on the embedding; None: no head.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> encoder = TabularStaticEncoder(tab_dim=3, tab_emb=8)
        >>> found = encoder(torch.tensor([[0.5, float("nan"), 1.0]]))
        >>> found["embedding"].shape, found["mask"]
        (torch.Size([1, 8]), tensor([[ True, False,  True]]))
    """

    def __init__(
        self, tab_dim: int, tab_emb: int = 128, num_classes: int | None = None, *, dropout: float = 0.1
    ) -> None:
        super().__init__()
        at_least(1, tab_dim=tab_dim, tab_emb=tab_emb)
        share(dropout=dropout)
        self.tab_dim = tab_dim
        self.gate = nn.Sequential(nn.Linear(2 * tab_dim, tab_emb), nn.GELU(), nn.Linear(tab_emb, tab_dim))
        self.directions = nn.Parameter(torch.randn(tab_dim, tab_emb) / tab_dim**0.5)
        self.offsets = nn.Parameter(torch.randn(tab_dim, tab_emb) / tab_dim**0.5)
        self.mixed = nn.Sequential(
            *(nn.LayerNorm(tab_emb), nn.Linear(tab_emb, 2 * tab_emb), nn.GELU(), nn.Dropout(dropout)),
            nn.Linear(2 * tab_emb, tab_emb),
        )
        self.norm = nn.LayerNorm(tab_emb)
        self.head = None if num_classes is None else nn.Linear(tab_emb, num_classes)

    def forward(self, tabular: Tensor) -> dict[str, Tensor]:
        """Embed rows.

        Args:
            tabular: floating `[B, D]`; NaN where a value is missing.

        Returns:
            "embedding" `[B, T]`; "tokens" `[B, D, T]`, one for each feature, and "mask" `[B, D]`, True where a value is
            known; "feature_gate" `[B, D]`; with a head "logits".
        """
        if tabular.ndim != 2 or tabular.shape[1] != self.tab_dim:
            raise ValueError(f"a table's rows are [B, D], D = {self.tab_dim} (tab_dim); got {list(tabular.shape)}")
        known = ~tabular.isnan()
        values = torch.where(known, tabular, 0.0)
        gate = self.gate(torch.cat([values, known.to(values.dtype)], dim=1)).sigmoid()
        gate = torch.where(known, gate, 0.0)
        tokens = (gate * values).unsqueeze(-1) * self.directions + gate.unsqueeze(-1) * self.offsets
        row = tokens.sum(1)
        embedding = kept(self.norm(row + self.mixed(row)), known.any(1))
        found = {"embedding": embedding, "tokens": tokens, "mask": known, "feature_gate": gate}
        return found if self.head is None else {**found, "logits": self.head(embedding)}
