"""Several transforms one after another."""

from typing import Any

from functrain.data.transforms.parts import Transform
from functrain.foundation.keys import fold_in


class Compose:
    """Transforms one after another; each has a key of its own, hashed from the sample's.

    Args:
        *transforms: functions of a sample and a key.

    Example:
        >>> import torch
        >>> from functrain.data.transforms import Flip, Noise
        >>> augment = Compose(Flip(), Noise(0.1))
        >>> image = torch.rand(3, 8, 8)
        >>> torch.equal(augment(image, 7), augment(image, 7)), torch.equal(augment(image, 7), augment(image, 8))
        (True, False)
    """

    def __init__(self, *transforms: Transform) -> None:
        for transform in transforms:
            if not callable(transform):
                raise TypeError(
                    f"Compose takes functions of a sample and a key, got {type(transform).__name__}; write "
                    "Compose(first, second), without a list"
                )
        self.transforms = transforms

    def __call__(self, sample: Any, key: int) -> Any:
        """The sample after all of them."""
        for place, transform in enumerate(self.transforms):
            sample = transform(sample, fold_in(key, place))
        return sample

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"
