"""U-Nets: an output for each pixel, from an encoder and a decoder with skip connections.

Shapes: B examples, C channels, H and W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from functrain.models.checks import at_least, images_of, share

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
}


class UNet(nn.Module):
    """A U-Net for images of any size.

    Its parts are called `encoder`, `decoder` and `head`, so that one network can begin with another's encoder and
    decoder, and have a head of its own. An image whose height or width is no multiple of `2 ** depth` is extended with
    zeros at its lower and right edge, and the output is cut to the image.

    Args:
        in_channels: of the images.
        out_channels: of the output: 1 for a reconstruction of grey images, the number of classes for logits.
        width: feature maps at full size; each halving doubles them.
        depth: how often the image is halved.
        dropout: share of the features at the lowest level that is dropped in training, 0 <= dropout < 1.
        norm: "batch", or "instance", which suits small batches: an image's output does not depend on the others.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015. Isensee et
        al., nnU-Net, Nature Methods 2021 (instance normalisation). He et al., Delving Deep into Rectifiers, ICCV 2015,
        equation 10 (initial weights).

    Example:
        >>> UNet(3, 2)(torch.zeros(5, 3, 30, 41)).shape
        torch.Size([5, 2, 30, 41])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        width: int = 16,
        depth: int = 2,
        dropout: float = 0.0,
        norm: Literal["batch", "instance"] = "batch",
    ) -> None:
        super().__init__()
        share(dropout=dropout)
        if norm not in NORMS:
            raise ValueError(f'norm must be "batch" or "instance", got {norm!r}')
        self.in_channels, self.norm = in_channels, norm
        self.encoder, self.decoder, self.head = parts(in_channels, out_channels, width, depth, NORMS[norm])
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """The output for each pixel.

        Args:
            images: floating `[B, in_channels, H, W]`.

        Returns:
            Floating `[B, out_channels, H, W]`.

        Raises:
            ValueError: for images of another shape; with instance normalisation, for images of which one pixel is left
                at the lowest level.
        """
        images_of(images, self.in_channels, "UNet")
        height, width = images.shape[2:]
        step = 2 ** len(self.decoder)
        if self.norm == "instance" and max(height, width) <= step:
            raise ValueError(
                f"images of {height} x {width} pixels, halved {len(self.decoder)} times, leave one pixel, which "
                'instance normalisation would make 0. Take a smaller depth, or norm="batch"'
            )
        extended = F.pad(images, (0, -width % step, 0, -height % step))
        *finer, lowest = encoded(self.encoder, extended)
        features = decoded(self.decoder, [*finer, self.dropout(lowest)])
        return self.head(features)[:, :, :height, :width]


def parts(
    in_channels: int, out_channels: int, width: int, depth: int, norm: Callable[[int], nn.Module]
) -> tuple[nn.ModuleList, nn.ModuleList, nn.Conv2d]:
    """The encoder, the decoder and the head of a U-Net.

    Raises:
        ValueError: if an argument is out of range.
    """
    at_least(1, in_channels=in_channels, out_channels=out_channels, width=width)
    if not 1 <= depth <= 6:
        raise ValueError(f"depth must be from 1 to 6, got {depth!r}")
    widths = [width * 2**level for level in range(depth + 1)]
    encoder = nn.ModuleList(
        _block(before, behind, norm) for before, behind in zip([in_channels, *widths[:-1]], widths, strict=True)
    )
    # From the coarsest level to the finest one, each beside the encoder's features of that size.
    decoder = nn.ModuleList(
        _block(coarse + fine, fine, norm) for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
    )
    return encoder, decoder, nn.Conv2d(width, out_channels, 1)


def encoded(encoder: nn.ModuleList, images: Tensor) -> list[Tensor]:
    """The features of each level, from the image's size to the lowest."""
    levels: list[Tensor] = []
    features = images
    for block in encoder:
        features = block(F.max_pool2d(features, 2) if levels else features)
        levels.append(features)
    return levels


def decoded(decoder: nn.ModuleList, levels: Sequence[Tensor]) -> Tensor:
    """Features at the image's size, from those of each level."""
    features = levels[-1]
    for block, finer in zip(decoder, levels[-2::-1], strict=True):
        features = block(torch.cat([F.interpolate(features, scale_factor=2.0), finer], dim=1))
    return features


def _block(inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    # The convolutions need no bias: the normalisation subtracts the mean and adds its own.
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), norm(outputs), nn.ReLU()]
    return nn.Sequential(*layers)
