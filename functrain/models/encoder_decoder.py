"""A small U-Net for images whose sizes it can halve; `UNet` takes any size.

Shapes: B examples, C channels, H and W pixels.
"""

from torch import Tensor, nn

from functrain.models.unet import decoded, encoded, parts


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
        >>> import torch
        >>> EncoderDecoder(1, 11)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 11, 8, 8])
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = parts(in_channels, out_channels, width, depth, nn.BatchNorm2d)

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
        return self.head(decoded(self.decoder, encoded(self.encoder, images)))
