"""A small convolutional encoder and decoder with skip connections: an output for each pixel."""

import torch
from torch import Tensor, nn


class EncoderDecoder(nn.Module):
    """A U-Net: the encoder halves the image a few times, the decoder doubles it again beside the encoder's features.

    Its parts are called `encoder`, `decoder` and `head`, so that one network can begin with another's encoder and
    decoder, and have a head of its own.

    Args:
        in_channels: of the images.
        out_channels: of the output: 1 for a reconstruction of grey images, the number of classes for logits.
        width: feature maps at full size; each halving doubles them.
        depth: how often the image is halved.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.

    Example:
        >>> EncoderDecoder(1, 11)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 11, 8, 8])
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if not 1 <= depth <= 6:
            raise ValueError(f"depth must be from 1 to 6, got {depth!r}")
        widths = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(map(_block, [in_channels, *widths[:-1]], widths))
        # From the coarsest level to the finest one, each beside the encoder's features of that size.
        self.decoder = nn.ModuleList(
            _block(coarse + fine, fine) for coarse, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(width, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """The output for each pixel.

        Args:
            images: floating `[B, in_channels, H, W]`; H and W are multiples of `2 ** depth`.

        Returns:
            Floating `[B, out_channels, H, W]`.
        """
        step = 2 ** len(self.decoder)
        if images.ndim != 4 or images.shape[2] % step or images.shape[3] % step:
            raise ValueError(
                f"EncoderDecoder takes images [B, C, H, W], H and W multiples of {step}; got {list(images.shape)}"
            )
        levels: list[Tensor] = []
        features = images
        for block in self.encoder:
            features = block(nn.functional.max_pool2d(features, 2) if levels else features)
            levels.append(features)
        for block, finer in zip(self.decoder, levels[-2::-1], strict=True):
            features = block(torch.cat([nn.functional.interpolate(features, scale_factor=2.0), finer], dim=1))
        return self.head(features)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    # The convolutions need no bias: BatchNorm subtracts the mean and adds its own.
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)
