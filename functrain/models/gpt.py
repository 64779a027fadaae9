"""A language model that predicts the next token from those before it, and continues texts.

Shapes: B texts, S tokens, K tokens that are seen, V tokens of the vocabulary, N heads, D features of a token (the
width).
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from functrain.foundation.keys import fold_in, generator, root_key
from functrain.foundation.numbers import is_integer, is_number
from functrain.models.attention import Heads, as_mask, dropout_of
from functrain.models.checks import at_least
from functrain.models.transformer import TransformerBlock


class GPT(nn.Module):
    """A language model as GPT-2: a causal transformer that predicts the next token, and continues texts.

    Each part is normalised before; positions are learned; input and output have one table of tokens.

    Args:
        vocabulary: number of tokens; 256 for bytes.
        length: the most tokens that it sees.
        width: features of a token.
        layers: blocks of attention and a feed-forward network.
        heads: of attention; they share the width.
        ratio: hidden features of a block's feed-forward network, in parts of the width.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.
        attention_weights: return a mapping of `logits` and `attention_weights`, a tensor `[B, heads, S, S]` for each
            block, in place of the logits alone.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Radford et al., Language Models are Unsupervised Multitask Learners, 2019: initial weights of section 2.3 and of
        the released code. Press and Wolf, Using the Output Embedding to Improve Language Models, EACL 2017 (one table).

    Example:
        >>> model = GPT(length=16, width=16, layers=1, heads=2)
        >>> model(torch.zeros(5, 8, dtype=torch.int64)).shape
        torch.Size([5, 8, 256])
        >>> model.generate(torch.tensor([72, 105]), 10, key=1).shape
        torch.Size([12])
    """

    def __init__(
        self,
        vocabulary: int = 256,
        length: int = 128,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        ratio: int = 4,
        dropout: float = 0.0,
        attention_weights: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, vocabulary=vocabulary, length=length, width=width, layers=layers)
        self.vocabulary, self.length, self.attention_weights = vocabulary, length, attention_weights
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.dropout = dropout_of(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, ratio, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # What each block adds to the features shall not make them grow with the number of blocks.
                adds = name.endswith(("attention.output.weight", "feed.3.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if adds else 0.02)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor | dict[str, Tensor | tuple[Tensor, ...]]:
        """Logits of the next token at each position.

        Args:
            tokens: int64 `[B, S]` in 0..vocabulary - 1, S at most `length`.
            mask: `[B, S]`, True or not 0 where a token is real; positions count real tokens alone. What the others hold
                does not matter. None: all are real.

        Returns:
            Logits, floating `[B, S, vocabulary]`, or the mapping that `attention_weights` asks for.

        Raises:
            ValueError: for tokens or a mask of another shape.
        """
        seen = self._seen(tokens, mask, None, need_weights=self.attention_weights)
        logits = self.head(seen.features)
        return {"logits": logits, "attention_weights": seen.weights} if self.attention_weights else logits

    def _seen(
        self, tokens: Tensor, mask: Tensor | None, past: Sequence[Heads] | None, *, need_weights: bool = False
    ) -> "_Seen":
        """The features of tokens behind those in `past`; the mask is of both."""
        known = 0 if past is None else past[0].keys.shape[2]
        if tokens.ndim != 2 or known + tokens.shape[1] > self.length:
            raise ValueError(f"GPT takes tokens [B, S], S at most {self.length}; got {list(tokens.shape)}")
        total = known + tokens.shape[1]
        mask = as_mask(mask, (len(tokens), total))
        if mask is None:
            places = self.positions.weight[known:total]
        else:
            tokens = torch.where(mask[:, known:], tokens, 0)
            places = self.positions((mask.cumsum(1) - 1).clamp(min=0)[:, known:])
        features = self.dropout(self.tokens(tokens) + places)
        weights: list[Tensor] = []
        heads: list[Heads] = []
        for number, block in enumerate(self.blocks):
            before = None if past is None else past[number]
            seen = block(features, mask, causal=True, need_weights=need_weights, past=before)
            features = seen.features
            weights += [seen.weights] if need_weights else []
            heads.append(seen.heads)
        return _Seen(self.norm(features), tuple(weights), tuple(heads))

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        n: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        key: int = 0,
        mask: Tensor | None = None,
        cache: bool = True,
    ) -> Tensor:
        """Continue texts by `n` tokens, in evaluation mode.

        A text's continuation depends on the text, the key and the settings alone: other texts of the batch do not
        matter, nor does padding. Equal texts in one batch have continuations of their own. Behind `length` tokens the
        model sees the last `length` ones.

        Args:
            prompt: integers `[B, S]` or `[S]` in 0..vocabulary - 1, at least one token.
            n: number of new tokens.
            temperature: logits are divided by it; 0 takes the most likely token.
            top_k: draw among the k most likely tokens; None: all.
            top_p: draw among the fewest most likely tokens that together have this probability; None: all.
            key: any integer, from which all draws follow.
            mask: `[B, S]` for prompts of unequal lengths: False, or 0, for padding, which stands before a text.
            cache: keep keys and values of tokens. Without it the tokens are the same, and each costs more.

        Returns:
            int64 `[B, S + n]` or `[S + n]`: the prompt, then the new tokens.

        Raises:
            ValueError: for a prompt, a mask or a setting that is out of range, or logits that are not finite.

        References:
            Fan et al., Hierarchical Neural Story Generation, ACL 2018 (top-k). Holtzman et al., The Curious Case of
            Neural Text Degeneration, ICLR 2020 (top-p).
        """
        settings = Sampling(temperature, top_k, top_p)
        settings.check()
        at_least(0, n=n)
        tokens, mask = self._prompt(prompt, mask)
        draws = _draws(tokens, mask, root_key(key))
        past: tuple[Heads, ...] | None = None
        with _evaluating(self):
            for _ in range(n):
                slides = tokens.shape[1] > self.length  # then each position changes, and nothing can be kept
                start = -1 if past is not None and not slides else -self.length
                window = None if mask is None else mask[:, -self.length :]
                seen = self._seen(tokens[:, start:], window, None if slides else past)
                past = seen.heads if cache else None
                uniform = torch.stack([torch.rand((), dtype=torch.float64, generator=each) for each in draws])
                chosen = settings.choose(self.head(seen.features[:, -1]), uniform)
                tokens = torch.cat([tokens, chosen[:, None]], dim=1)
                mask = None if mask is None else torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return tokens if prompt.ndim == 2 else tokens[0]

    def _prompt(self, prompt: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The prompt as int64 `[B, S]`, and its mask."""
        if prompt.ndim not in (1, 2) or not prompt.numel() or prompt.is_floating_point() or prompt.is_complex():
            raise ValueError(
                f"a prompt is integers [B, S] or [S] of at least one token; got {prompt.dtype} {list(prompt.shape)}"
            )
        tokens = prompt.long().reshape(-1, prompt.shape[-1])
        mask = as_mask(mask if mask is None else mask.reshape(-1, mask.shape[-1]), tokens.shape)
        if mask is not None:
            if not mask[:, -1].all() or (mask[:, :-1] & ~mask[:, 1:]).any():
                raise ValueError("the padding of a prompt must stand before its text, and each text have a token")
            tokens = torch.where(mask, tokens, 0)
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocabulary:
            raise ValueError(
                f"the tokens of a prompt must be from 0 to {self.vocabulary - 1}, got {int(tokens.min())} to "
                f"{int(tokens.max())}"
            )
        return tokens, mask


class _Seen(NamedTuple):
    features: Tensor  # [B, S, D]
    weights: tuple[Tensor, ...]
    heads: tuple[Heads, ...]


class Sampling(NamedTuple):
    """How the next token is chosen; arguments as of `GPT.generate`."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def choose(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """A token for each text.

        Args:
            logits: floating `[B, V]`.
            uniform: float64 `[B]`, from 0 to below 1; unused with a temperature of 0.

        Returns:
            int64 `[B]`.

        Raises:
            ValueError: for a setting that is out of range, or logits that are not finite.

        Example:
            >>> logits, uniform = torch.tensor([[0.0, 5.0, 1.0]]), torch.tensor([0.999], dtype=torch.float64)
            >>> Sampling(temperature=0.0).choose(logits, uniform), Sampling(top_k=2).choose(logits, uniform)
            (tensor([1]), tensor([2]))
        """
        self.check()
        if not logits.isfinite().all():
            raise ValueError("the model's logits are not finite: there is no token to choose")
        logits = logits.double()
        if self.temperature == 0.0:
            return logits.argmax(1)
        chances, order = (logits / self.temperature).softmax(1).sort(dim=1, descending=True, stable=True)
        before = chances.cumsum(1) - chances  # of the tokens that are more likely
        left = torch.ones_like(chances, dtype=torch.bool)
        if self.top_k is not None:
            left[:, self.top_k :] = False
        if self.top_p is not None:
            before = before / torch.where(left, chances, 0.0).sum(1, keepdim=True)
            left[:, 1:] &= before[:, 1:] < self.top_p
        sums = torch.where(left, chances, 0.0).cumsum(1)
        places = (sums > uniform.to(sums.device)[:, None] * sums[:, -1:]).int().argmax(1)
        return order.gather(1, places[:, None]).squeeze(1)

    def check(self) -> None:
        """Refuse settings that are out of range.

        Raises:
            ValueError: for such a setting.
        """
        temperature, top_k, top_p = self
        if not is_number(temperature) or not 0.0 <= temperature < math.inf:
            raise ValueError(f"temperature must be a finite number of at least 0, got {temperature!r}")
        if top_k is not None and not is_integer(top_k, 1):
            raise ValueError(f"top_k must be a whole number of at least 1, or None; got {top_k!r}")
        if top_p is not None and (not is_number(top_p) or not 0.0 < top_p <= 1.0):
            raise ValueError(f"top_p must be above 0 and at most 1, or None; got {top_p!r}")


def _draws(tokens: Tensor, mask: Tensor | None, key: int) -> list[torch.Generator]:
    """A generator for each text, seeded by the key, the text, and how many equal ones stand before it."""
    texts = [tuple(row) for row in tokens.tolist()]
    if mask is not None:
        texts = [text[-count:] for text, count in zip(texts, mask.sum(1).tolist())]
    return [generator(fold_in(key, texts[:row].count(text), *text)) for row, text in enumerate(texts)]


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each part back into its own mode afterwards."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode
