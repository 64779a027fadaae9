"""A plain GPT, as in nanoGPT: the transformer of the benchmarks, from a small one to GPT-2's 124M. Imports torch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Legend of shapes: B batch, T tokens, D width, H heads, V vocabulary.


@dataclass(frozen=True)
class Size:
    """Of a GPT; the defaults are GPT-2 124M, its vocabulary padded to a multiple of 64 for the matrix products."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    tokens: int = 1024
    vocabulary: int = 50304


class Block(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1 = nn.LayerNorm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.out = nn.Linear(size.width, size.width)
        self.norm2 = nn.LayerNorm(size.width)
        self.up = nn.Linear(size.width, 4 * size.width)
        self.down = nn.Linear(4 * size.width, size.width)

    def forward(self, x_BTD: Tensor) -> Tensor:  # noqa: N803 - the shape's letters
        B, T, D = x_BTD.shape  # noqa: N806
        q, k, v = (
            part.view(B, T, self.heads, D // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x_BTD)).split(D, dim=2)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(attended.transpose(1, 2).reshape(B, T, D))  # noqa: N806
        return x_BTD + self.down(F.gelu(self.up(self.norm2(x_BTD)), approximate="tanh"))


class GPT(nn.Module):
    """Logits `[B, T, V]` of tokens `[B, T]`; the embedding of tokens is the output layer, too."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.tokens, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:  # GPT-2's: smaller where a layer adds to the residual stream
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / (2 * size.layers) ** 0.5 if residual else 0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens_BT: Tensor) -> Tensor:  # noqa: N803
        x_BTD = self.tokens(tokens_BT) + self.positions.weight[: tokens_BT.shape[1]]  # noqa: N806
        for block in self.blocks:
            x_BTD = block(x_BTD)  # noqa: N806
        return self.head(self.norm(x_BTD))


def flops_per_token(size: Size) -> int:
    """Floating-point operations of forward and backward pass for a token: 6 for each weight of a matrix product, and
    those of attention.

    References:
        PaLM (arXiv:2204.02311), appendix B.
    """
    weights = size.layers * 12 * size.width**2 + size.vocabulary * size.width
    return 6 * weights + 12 * size.layers * size.width * size.tokens


def next_token_loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:  # noqa: N803
    """Mean cross-entropy."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def random_text(size: Size, batch: int, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
    """Tokens, and those that follow them."""
    text_BT = torch.randint(size.vocabulary, (batch, size.tokens + 1), device=device)  # noqa: N806
    return text_BT[:, :-1].contiguous(), text_BT[:, 1:].contiguous()
