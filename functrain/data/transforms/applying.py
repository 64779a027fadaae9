"""Where transforms meet the data: a data set of transformed samples, and batches that are transformed as a whole."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import default_collate

from functrain.data.collating import collated
from functrain.data.datasets import Wrapper
from functrain.data.transforms.parts import BatchTransform, Transform


class Transformed(Wrapper):
    """A data set with a transform of its samples.

    The key of a sample is drawn from torch's global generator. Where functrain reads (`fit`, `Loader`), that is
    seeded by the run's key, the epoch and the example's index: the samples of an epoch are the same with any number
    of workers, and after a resume.

    Args:
        dataset: map-style: `len()`, and samples by number.
        transform: a function of a sample and a key, such as `Compose(Flip(), Noise(0.1))`.

    Raises:
        TypeError: if either is something else.

    Example:
        >>> from functrain.data import Arrays
        >>> from functrain.data.transforms import Noise
        >>> data = Transformed(Arrays(torch.zeros(4, 2), torch.arange(4)), Noise(0.1))
        >>> sample, label = data[3]
        >>> len(data), sample.shape, label
        (4, torch.Size([2]), tensor(3))
    """

    def __init__(self, dataset: Any, transform: Transform) -> None:
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise TypeError(f"Transformed needs a data set with __getitem__ and __len__, got {type(dataset).__name__}")
        if isinstance(transform, BatchTransform):
            raise TypeError(
                f"{type(transform).__name__} transforms batches, not samples: give it to Loader(batch_transform=...)"
            )
        if not callable(transform):
            raise TypeError(f"transform must be a function of a sample and a key, got {type(transform).__name__}")
        self.dataset, self.transform = dataset, transform

    def __getitem__(self, index: int) -> Any:
        key = drawn_key()  # first: what the data set draws must not change it
        return self.transform(self.dataset[index], key)


@dataclass(frozen=True)
class TransformedBatch:
    """A `collate_fn` with a transform of the batch: for a `DataLoader`; `Loader(..., batch_transform=...)` makes one.

    Args:
        transform: a function of a batch and a key, such as `MixUp(classes=10)`.
        collate_fn: puts the samples together; None is torch's `default_collate`.

    Example:
        >>> from functrain.data.transforms import MixUp
        >>> samples = [(torch.zeros(2), torch.tensor(0)), (torch.ones(2), torch.tensor(1))]
        >>> [part.shape for part in TransformedBatch(MixUp(classes=3))(samples)]
        [torch.Size([2, 2]), torch.Size([2, 3])]
    """

    transform: Any
    collate_fn: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if not callable(self.transform):
            given = type(self.transform).__name__
            raise TypeError(f"batch_transform must be a function of a batch and a key, got {given}")

    def __call__(self, samples: Any) -> Any:
        """The batch."""
        key = drawn_key()  # first: what the collate_fn draws must not change it
        return self.transform(collated(samples) if self.collate_fn is None else self.collate_fn(samples), key)

    @property
    def collates_plainly(self) -> bool:
        """Whether samples are only put together before the transform, so that a batch may come from tensors at once."""
        return self.collate_fn is None or self.collate_fn is default_collate

    def of_collated(self, batch: Any) -> Any:
        """The batch of samples that were put together already."""
        return self.transform(batch, drawn_key())


def drawn_key() -> int:
    """A key out of torch's global generator."""
    halves = torch.randint(2**32, (2,), dtype=torch.int64).tolist()
    return halves[0] << 32 | halves[1]
