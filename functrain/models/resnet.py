"""Residual networks for images, large and small; the parameters have torchvision's names.

Shapes: B examples, C channels, H and W pixels.
"""

from typing import Literal

from torch import Tensor, nn

from functrain.models.checks import at_least, images_of, share, sizes_at_least


class ResNet(nn.Module):
    """A residual network: one for photographs, such as ResNet-18 and ResNet-50, or a small one for small images.

    | network | `blocks` | `bottleneck` | `width` | `stem` |
    |---|---|---|---|---|
    | ResNet-18, 34 | (2, 2, 2, 2), (3, 4, 6, 3) | False | 64 | "large" |
    | ResNet-50, 101, 152 | (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3) | True | 64 | "large" |
    | ResNet-20, 32 for CIFAR | (3, 3, 3), (5, 5, 5) | False | 16 | "small" |

    A bottleneck halves the image in its 3 x 3 convolution (version 1.5). The first five fit torchvision's files of
    weights, name by name.

    Args:
        in_channels: of the images.
        num_classes: number of logits.
        blocks: residual blocks at each size; the image is halved and the width doubled between them.
        width: feature maps of the first blocks; a bottleneck gives out four times as many.
        bottleneck: blocks of 1 x 1, 3 x 3 and 1 x 1 convolutions, in place of two 3 x 3 ones.
        stem: "small" begins with a 3 x 3 convolution; "large", for photographs, quarters the image first.
        dropout: share of the features before the linear layer that is dropped in training, 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.

    References:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016. He et al., Delving Deep into Rectifiers,
        ICCV 2015, equation 10 (initial weights). Goyal et al., Accurate, Large Minibatch SGD, 2017, section 5.1 (the
        scale of a block's last BatchNorm is 0 at first, so that the block begins as the identity).

    Example:
        >>> import torch
        >>> ResNet(3, width=8, blocks=(1, 1))(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 64,
        bottleneck: bool = False,
        stem: Literal["small", "large"] = "small",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        at_least(1, in_channels=in_channels, num_classes=num_classes, width=width)
        sizes_at_least(1, blocks=blocks)
        share(dropout=dropout)
        if stem not in ("small", "large"):
            raise ValueError(f'stem must be "small" or "large", got {stem!r}')
        self.in_channels, self.sizes = in_channels, len(blocks)
        large = stem == "large"
        self.conv1 = _convolution(in_channels, width, 7 if large else 3, stride=2 if large else 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        features = width
        for level, count in enumerate(blocks):
            layer = nn.Sequential()
            for number in range(count):
                stride = 2 if level and not number else 1
                layer.append(_Block(features, width * 2**level, stride, bottleneck=bottleneck))
                features = width * 2**level * (4 if bottleneck else 1)
            self.add_module(f"layer{level + 1}", layer)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Args:
            images: floating `[B, in_channels, H, W]`.

        Returns:
            Logits, floating `[B, num_classes]`.

        Raises:
            ValueError: for images of another shape.
        """
        images_of(images, self.in_channels, "ResNet")
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for level in range(self.sizes):
            features = self.get_submodule(f"layer{level + 1}")(features)
        return self.fc(self.dropout(features.mean((2, 3))))


class _Block(nn.Module):
    """Two or three convolutions, added to their input."""

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            self.conv1, self.bn1 = _convolution(inputs, width, 1), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = _convolution(width, width, 3, stride), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = _convolution(width, outputs, 1), nn.BatchNorm2d(outputs)
        else:
            self.conv1, self.bn1 = _convolution(inputs, width, 3, stride), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = _convolution(width, width, 3), nn.BatchNorm2d(width)
        nn.init.zeros_((self.bn3 if bottleneck else self.bn2).weight)
        self.relu = nn.ReLU()
        self.bottleneck = bottleneck
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        changed = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(features)))))
        if self.bottleneck:
            changed = self.bn3(self.conv3(self.relu(changed)))
        return self.relu(changed + (features if self.downsample is None else self.downsample(features)))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    # It needs no bias: BatchNorm subtracts the mean and adds its own.
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
