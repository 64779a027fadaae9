"""A multilayer perceptron for tables of numbers."""

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU and dropout between them.

    Args:
        inputs: features of an example.
        outputs: values or logits of an example.
        width: features of each hidden layer.
        depth: hidden layers; with 0 the model is linear.
        dropout: share of the hidden features that is dropped in training, 0 <= dropout < 1.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> MLP(30, 1)(torch.zeros(5, 30)).shape
        torch.Size([5, 1])
    """

    def __init__(self, inputs: int, outputs: int, width: int = 64, depth: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        for name, value in (("inputs", inputs), ("outputs", outputs), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if depth < 0:
            raise ValueError(f"depth must be at least 0, got {depth!r}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout!r}")
        widths = [inputs, *[width] * depth]
        hidden = [
            layer
            for before, behind in pairwise(widths)
            for layer in (nn.Linear(before, behind), nn.ReLU(), nn.Dropout(dropout))
        ]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Values or logits of examples.

        Args:
            features: floating `[B, inputs]`.

        Returns:
            Floating `[B, outputs]`.
        """
        return self.layers(features)
