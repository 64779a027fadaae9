"""Vision transformers: classes, an output for each pixel, and the masked autoencoder that pre-trains their encoder.

Shapes: B examples, C channels, H and W pixels, P side of a patch, S patches of an image, K of them that the encoder
sees, D features of a patch (the width).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from functrain.foundation.keys import generator, root_key
from functrain.models.attention import dropout_of, linear
from functrain.models.checks import Size, at_least, image_size, images_of, share
from functrain.models.patches import chosen, grid_positions, images_from, patches, require_multiple_of_4
from functrain.models.transformer import TransformerBlock


class Encoded(NamedTuple):
    """What an encoder makes of images.

    Attributes:
        features: `[B, K, D]`.
        weights: attention weights of each block, `[B, N, K, K]`; empty if they were not asked for.
    """

    features: Tensor
    weights: tuple[Tensor, ...]


class Encoder(nn.Module):
    """Images as patches, each with its position, and blocks of attention between them.

    Args:
        size: height and width of the images in pixels; one number for square images.
        in_channels: of the images.
        patch: side of a patch in pixels; height and width are multiples of it.
        width: features of a patch, a multiple of 4.
        layers: blocks.
        heads: of attention; they share the width.
        ratio: hidden features of a block's feed-forward network, in parts of the width.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, size: Size, in_channels: int, patch: int, width: int, layers: int, heads: int, ratio: int, dropout: float
    ) -> None:
        super().__init__()
        at_least(1, in_channels=in_channels, patch=patch, layers=layers)
        self.size = image_size(size)
        if self.size[0] % patch or self.size[1] % patch:
            raise ValueError(f"size must be a multiple of patch, got {size!r} and {patch!r}")
        self.in_channels, self.patch = in_channels, patch
        self.grid = (self.size[0] // patch, self.size[1] // patch)
        require_multiple_of_4(width)
        self.embed = linear(in_channels * patch * patch, width)
        self.dropout = dropout_of(dropout)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, ratio, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor, visible: Tensor | None = None, *, need_weights: bool = False) -> Encoded:
        """The features of patches.

        Args:
            images: floating `[B, C, H, W]`.
            visible: int64 `[B, K]`, the patches that the encoder sees, in rows from the upper left; None: all.
            need_weights: return the attention weights.

        Raises:
            ValueError: for images of another shape.
        """
        images_of(images, self.in_channels, "a vision transformer", self.size)
        pixels, positions = patches(images, self.patch), grid_positions(self.grid, self.norm.weight)
        if visible is not None:
            pixels, positions = chosen(pixels, visible), positions[visible]
        features = self.dropout(self.embed(pixels) + positions)
        weights: list[Tensor] = []
        for block in self.blocks:
            seen = block(features, need_weights=need_weights)
            features = seen.features
            weights += [seen.weights] if need_weights else []
        return Encoded(self.norm(features), tuple(weights))


class ViT(nn.Module):
    """A vision transformer that classifies by the mean of its patches.

    `encoder` has the parameters of a `MaskedAutoencoder`'s, so that a stage can begin with a pre-trained one.

    Args:
        size: height and width of the images in pixels; one number for square images.
        in_channels: of the images.
        num_classes: number of logits.
        patch: side of a patch in pixels; height and width are multiples of it.
        width: features of a patch, a multiple of 4.
        layers: blocks of attention and a feed-forward network.
        heads: of attention; they share the width.
        ratio: hidden features of a block's feed-forward network, in parts of the width.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.
        attention_weights: return a mapping of `logits`, `embedding` `[B, D]` and `attention_weights`, a tensor
            `[B, heads, S, S]` for each block, in place of the logits alone.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021. Beyer et al., Better plain ViT baselines for
        ImageNet-1k, 2022 (mean of the patches, positions as sines and cosines).

    Example:
        >>> ViT(8, patch=2)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        size: Size = 28,
        in_channels: int = 1,
        num_classes: int = 10,
        patch: int = 4,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        ratio: int = 4,
        dropout: float = 0.0,
        attention_weights: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, num_classes=num_classes)
        self.encoder = Encoder(size, in_channels, patch, width, layers, heads, ratio, dropout)
        self.head = _head(width, num_classes)
        self.attention_weights = attention_weights

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor | tuple[Tensor, ...]]:
        """Logits of images.

        Args:
            images: floating `[B, in_channels, H, W]`.

        Returns:
            Logits, floating `[B, num_classes]`, or the mapping that `attention_weights` asks for.

        Raises:
            ValueError: for images of another shape.
        """
        seen = self.encoder(images, need_weights=self.attention_weights)
        embedding = seen.features.mean(1)
        logits = self.head(embedding)
        if not self.attention_weights:
            return logits
        return {"logits": logits, "embedding": embedding, "attention_weights": seen.weights}


class DenseViT(nn.Module):
    """A vision transformer with an output for each pixel: a linear layer gives those of a patch.

    `encoder` has the parameters of a `MaskedAutoencoder`'s, so that a stage can begin with a pre-trained one.

    Args:
        size: height and width of the images in pixels; one number for square images.
        in_channels: of the images.
        out_channels: of the output: the number of classes for logits.
        patch: side of a patch in pixels; height and width are multiples of it.
        width: features of a patch, a multiple of 4.
        layers: blocks of attention and a feed-forward network.
        heads: of attention; they share the width.
        ratio: hidden features of a block's feed-forward network, in parts of the width.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Strudel et al., Segmenter: Transformer for Semantic Segmentation, ICCV 2021 (the linear decoder).

    Example:
        >>> DenseViT(8, out_channels=11, patch=2)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 11, 8, 8])
    """

    def __init__(
        self,
        size: Size = 28,
        in_channels: int = 1,
        out_channels: int = 2,
        patch: int = 4,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        ratio: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(1, out_channels=out_channels)
        self.encoder = Encoder(size, in_channels, patch, width, layers, heads, ratio, dropout)
        self.head = _head(width, out_channels * patch * patch)

    def forward(self, images: Tensor) -> Tensor:
        """The output for each pixel.

        Args:
            images: floating `[B, in_channels, H, W]`.

        Returns:
            Floating `[B, out_channels, H, W]`.

        Raises:
            ValueError: for images of another shape.
        """
        return images_from(self.head(self.encoder(images).features), self.encoder.grid, self.encoder.patch)


class MaskedAutoencoder(nn.Module):
    """Pre-trains the encoder of a vision transformer: it sees a few patches, and a decoder reconstructs the others.

    Which patches are hidden is drawn for each image from torch's generator, which a training step seeds, or follows
    from the key that is given. Train it with `functrain.masked_reconstruction()`. `encoder` has the parameters of
    `ViT`'s and `DenseViT`'s.

    Args:
        size: height and width of the images in pixels; one number for square images.
        in_channels: of the images.
        patch: side of a patch in pixels; height and width are multiples of it.
        fraction: of the patches that are hidden.
        width: features of a patch in the encoder, a multiple of 4.
        layers: blocks of the encoder.
        heads: of attention; they share the width, and the decoder's.
        ratio: hidden features of a block's feed-forward network, in parts of the width.
        dropout: share of the features that is dropped in training, 0 <= dropout < 1.
        decoder_width: features of a patch in the decoder, a multiple of 4.
        decoder_layers: blocks of the decoder.
        normalize_pixels: reconstruct each patch's pixels less their mean, divided by their standard deviation.

    Raises:
        ValueError: if an argument is out of range.

    References:
        He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022.

    Example:
        >>> outputs = MaskedAutoencoder(8, patch=2)(torch.zeros(5, 1, 8, 8))
        >>> outputs["prediction"].shape, outputs["hidden"].sum(1)
        (torch.Size([5, 16, 4]), tensor([12, 12, 12, 12, 12]))
    """

    def __init__(
        self,
        size: Size = 28,
        in_channels: int = 1,
        patch: int = 4,
        fraction: float = 0.75,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        ratio: int = 4,
        dropout: float = 0.0,
        decoder_width: int = 32,
        decoder_layers: int = 2,
        normalize_pixels: bool = False,
    ) -> None:
        super().__init__()
        share(fraction=fraction)
        at_least(1, decoder_layers=decoder_layers)
        self.encoder = Encoder(size, in_channels, patch, width, layers, heads, ratio, dropout)
        count = self.encoder.grid[0] * self.encoder.grid[1]
        self.visible = count - round(fraction * count)
        if not 0 < self.visible < count:
            raise ValueError(f"a fraction of {fraction!r} of {count} patches hides {count - self.visible} of them")
        self.normalize_pixels = normalize_pixels
        require_multiple_of_4(decoder_width)
        self.embed = linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.randn(decoder_width) * 0.02)  # in place of a hidden patch
        self.decoder = nn.ModuleList(
            TransformerBlock(decoder_width, heads, ratio, dropout) for _ in range(decoder_layers)
        )
        self.norm = nn.LayerNorm(decoder_width)
        self.head = linear(decoder_width, in_channels * patch * patch)

    def forward(self, images: Tensor, key: int | None = None) -> dict[str, Tensor]:
        """Reconstruct hidden patches.

        Args:
            images: floating `[B, in_channels, H, W]`.
            key: which patches are hidden follows from it; any integer. None: drawn from torch's generator. A key is for
                calls outside of compiled steps.

        Returns:
            `prediction` and `target`, floating `[B, S, in_channels * patch * patch]`: the pixels of each patch;
            `hidden`, bool `[B, S]`; `embedding`, `[B, D]`: the mean over the visible patches.

        Raises:
            ValueError: for images of another shape.
        """
        images_of(images, self.encoder.in_channels, "MaskedAutoencoder", self.encoder.size)
        order = self._order(images, key)
        places = order.argsort(1)  # of each patch in the order
        seen = self.encoder(images, order[:, : self.visible]).features
        embedded = self.embed(seen)
        hidden = self.mask_token.to(embedded.dtype).expand(len(images), order.shape[1] - self.visible, -1)
        features = chosen(torch.cat([embedded, hidden], dim=1), places)
        features = features + grid_positions(self.encoder.grid, self.mask_token)
        for block in self.decoder:
            features = block(features).features
        return {
            "prediction": self.head(self.norm(features)),
            "target": self._target(images),
            "hidden": places >= self.visible,
            "embedding": seen.mean(1),
        }

    def _order(self, images: Tensor, key: int | None) -> Tensor:
        """`[B, S]`, the patches of each image in a random order: the first are visible."""
        shape = (len(images), self.encoder.grid[0] * self.encoder.grid[1])
        if key is None:
            return torch.rand(shape, device=images.device).argsort(1)
        return torch.rand(shape, generator=generator(root_key(key))).argsort(1).to(images.device)

    def _target(self, images: Tensor) -> Tensor:
        pixels = patches(images, self.encoder.patch)
        if not self.normalize_pixels:
            return pixels
        variance, mean = torch.var_mean(pixels, dim=-1, keepdim=True)
        return (pixels - mean) / (variance + 1e-6).sqrt()

    def images(self, pixels: Tensor) -> Tensor:
        """Images `[B, C, H, W]` from the pixels of patches, such as `prediction`."""
        return images_from(pixels, self.encoder.grid, self.encoder.patch)


def _head(width: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(width, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
