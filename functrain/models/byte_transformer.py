"""A small causal transformer that foresees the next byte of a text."""

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class ByteTransformer(nn.Module):
    """Blocks of causal attention and a feed-forward layer, normalised before each, as in GPT-2.

    Args:
        width: features of a position.
        layers: blocks.
        heads: of attention; they share the width.
        length: the longest text that it takes, in bytes.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Radford et al., Language Models are Unsupervised Multitask Learners, 2019.

    Example:
        >>> import torch
        >>> ByteTransformer(16, layers=1, heads=2, length=8)(torch.zeros(5, 8, dtype=torch.int64)).shape
        torch.Size([5, 8, 256])
    """

    def __init__(
        self, width: int = 64, layers: int = 2, heads: int = 4, length: int = 128, dropout: float = 0.0
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("layers", layers), ("heads", heads), ("length", length)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width!r} and {heads!r}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout!r}")
        self.bytes = nn.Embedding(256, width)
        self.positions = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(_Block(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256, bias=False)
        for table in (self.bytes, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, text: Tensor) -> Tensor:
        """Logits of the next byte at each position.

        Args:
            text: int64 `[B, T]` in 0..255, T at most `length`.

        Returns:
            Floating `[B, T, 256]`.
        """
        if text.ndim != 2 or text.shape[1] > self.positions.num_embeddings:
            raise ValueError(
                f"ByteTransformer takes texts [B, T], T at most {self.positions.num_embeddings}; got {list(text.shape)}"
            )
        features = self.bytes(text) + self.positions.weight[: text.shape[1]]
        return self.head(self.norm(self.blocks(self.dropout(features))))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self._head_width = heads, width // heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        # Three parts of as many heads as this process has.
        parts = self.query_key_value(self.attention_norm(features)).unflatten(-1, (3, -1, self._head_width))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # [B, heads, T, width / heads] each
        seen = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2)
        features = features + self.dropout(self.mixed(seen))
        return features + self.dropout(self.feed(self.feed_norm(features)))
