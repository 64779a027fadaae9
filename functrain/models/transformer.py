"""The block that transformers are made of, and positions as sines and cosines.

Shapes: B examples, S tokens, Q queries, K keys, N heads, D features of a token (the width).
"""

import torch
from torch import Tensor, nn

from functrain.models.attention import Attended, Heads, MultiHeadAttention, as_mask, dropout_of, kept, linear
from functrain.models.checks import at_least, multiple_of_heads

# Which layers of the blocks processes share in tensor parallelism, for `functrain.shard`.
TENSOR_PARALLEL = {
    "*.attention.query": "column",
    "*.attention.key": "column",
    "*.attention.value": "column",
    "*.attention.output": "row",
    "*.feed.0": "column",
    "*.feed.3": "row",
}


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward network with GELU; each is normalised before and added to its input.

    The output of a masked token is 0, whatever the input holds there.

    Args:
        width: features of a token.
        heads: of attention; they share the width.
        ratio: hidden features of the feed-forward network, in parts of the width.
        dropout: share of the features that is dropped in training: of the attention weights, the hidden features, and
            what each part adds. 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Xiong et al., On Layer Normalization in the Transformer Architecture, ICML 2020 (Pre-LN).

    Example:
        >>> TransformerBlock(8, heads=2)(torch.zeros(5, 3, 8)).features.shape
        torch.Size([5, 3, 8])
    """

    def __init__(self, width: int, heads: int, ratio: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        multiple_of_heads(width, heads)
        at_least(1, ratio=ratio)
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, dropout)
        self.feed = nn.Sequential(
            linear(width, ratio * width), nn.GELU(), dropout_of(dropout), linear(ratio * width, width)
        )
        self.dropout = dropout_of(dropout)

    def forward(
        self,
        features: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        need_weights: bool = False,
        past: Heads | None = None,
    ) -> Attended:
        """The features, attention weights, and keys and values of the tokens.

        Args:
            features: floating `[B, S, D]`.
            mask: `[B, K]`, True or not 0 where a token is real, those in `past` first; None: all are.
            causal: a token sees none behind its own place.
            need_weights: return the attention weights, `[B, N, S, K]`.
            past: keys and values of tokens before these.

        Raises:
            ValueError: if the mask has another shape.
        """
        known = 0 if past is None else past.keys.shape[2]
        mask = as_mask(mask, (features.shape[0], known + features.shape[1]))
        real = mask if mask is None else mask[:, known:]
        features = kept(features, real)
        seen = self.attention(
            self.attention_norm(features), mask=mask, causal=causal, need_weights=need_weights, past=past
        )
        features = features + self.dropout(seen.features)
        features = features + self.dropout(self.feed(self.feed_norm(features)))
        return seen._replace(features=kept(features, real))


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Positions as sines and cosines of wavelengths from 2 pi to 20,000 pi.

    Args:
        positions: numbers `[...]`.
        width: even.

    Returns:
        Floating `[..., width]`: the sines, then the cosines.

    Raises:
        ValueError: if the width is odd or below 2.

    References:
        Vaswani et al., Attention Is All You Need, NeurIPS 2017, section 3.5.

    Example:
        >>> sinusoids(torch.tensor([0.0]), 4)
        tensor([[0., 0., 1., 1.]])
    """
    at_least(2, width=width)
    if width % 2:
        raise ValueError(f"width must be even for positions as sines and cosines, got {width}")
    places = torch.arange(width // 2, dtype=torch.float64, device=positions.device) / (width // 2)
    angles = positions.double().unsqueeze(-1) / 10_000.0**places
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(torch.get_default_dtype())
