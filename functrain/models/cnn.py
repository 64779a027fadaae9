"""A small convolutional network for images of any size.

Shapes: B examples, C channels, H and W pixels.
"""

from itertools import pairwise

from torch import Tensor, nn

from functrain.models.checks import at_least, images_of, share, sizes_at_least


class CNN(nn.Module):
    """Pairs of convolutions with BatchNorm and ReLU, the image halved between them; then the mean over the pixels.

    Args:
        in_channels: of the images.
        num_classes: number of logits.
        widths: feature maps of each pair of convolutions.
        dropout: share of the features before the linear layer that is dropped in training, 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015 (pairs of 3 x 3 convolutions). Lin et al.,
        Network In Network, ICLR 2014 (mean over the pixels). He et al., Delving Deep into Rectifiers, ICCV 2015,
        equation 10 (initial weights).

    Example:
        >>> import torch
        >>> CNN(3, num_classes=10)(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 10, widths: tuple[int, ...] = (32, 64), dropout: float = 0.0
    ) -> None:
        super().__init__()
        at_least(1, in_channels=in_channels, num_classes=num_classes)
        sizes_at_least(1, widths=widths)
        share(dropout=dropout)
        self.in_channels = in_channels
        self.features = nn.Sequential()
        for before, width in pairwise([in_channels, *widths]):
            if len(self.features):
                self.features.append(nn.MaxPool2d(2))
            self.features.extend([_layer(before, width), _layer(width, width)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Args:
            images: floating `[B, in_channels, H, W]`; H and W are at least `2 ** (len(widths) - 1)`.

        Returns:
            Logits, floating `[B, num_classes]`.

        Raises:
            ValueError: for images of another shape.
        """
        images_of(images, self.in_channels, "CNN")
        return self.head(self.dropout(self.features(images).mean((2, 3))))


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    # The convolution needs no bias: BatchNorm subtracts the mean and adds its own.
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
