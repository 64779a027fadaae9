"""A small convolutional network for images of digits: the demo's model."""

import torch
from torch import Tensor, nn


class DigitsCNN(nn.Module):
    """Two pairs of convolutions with BatchNorm, the image halved between them, then dropout and a linear layer.

    Args:
        channels: feature maps of the first pair; the second has twice as many.
        dropout: share of the features before the linear layer that is dropped in training, 0 <= dropout < 1.
        num_classes: number of logits.
        size: height and width of the images in pixels, even: 8 for scikit-learn's digits, 28 for MNIST.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> DigitsCNN()(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(self, channels: int = 32, dropout: float = 0.2, num_classes: int = 10, size: int = 8) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels!r}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout!r}")
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes!r}")
        if size < 2 or size % 2:
            raise ValueError(f"size must be even and at least 2, got {size!r}")
        self.size = size
        self.features = nn.Sequential(
            _stage(1, channels),
            _stage(channels, channels),
            nn.MaxPool2d(2),
            _stage(channels, 2 * channels),
            _stage(2 * channels, 2 * channels),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * channels * (size // 2) ** 2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Args:
            images: floating `[B, 1, size, size]`.

        Returns:
            Logits, floating `[B, num_classes]`.
        """
        if images.shape[1:] != (1, self.size, self.size):
            raise ValueError(
                f"DigitsCNN takes images of shape [B, 1, {self.size}, {self.size}], got {list(images.shape)}; its "
                "parameter size is their height and width"
            )
        return self.head(self.dropout(torch.flatten(self.features(images), 1)))


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    # The convolution needs no bias: BatchNorm subtracts the mean and adds its own.
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
