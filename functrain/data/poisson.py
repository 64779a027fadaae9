"""Batches that each example is in with one probability, alone of the others: what differential privacy assumes."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from functrain.data.collating import collated
from functrain.data.datasets import Wrapper
from functrain.data.indexed import IndexedStream, Workers
from functrain.data.plans import Task, check_reached
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in, generator, root_key
from functrain.foundation.numbers import is_integer
from functrain.objectives.batch import unpack, with_weight

PADDING = -1  # the index of no example
DEVIATIONS = 5  # of a batch's size from its mean that the padded size has room for: one batch in 3 million is larger


@dataclasses.dataclass(frozen=True, eq=False)
class PoissonLoader:
    """Micro-batches that hold each example with probability `batch_size / N`, independently of all others.

    Batches are padded with examples of weight 0 to one size, so a batch may be empty, and a compiled step meets one
    shape. Only a batch beyond 5 standard deviations has another one, twice as large.

    `functrain.fit` supplies the key, as for a `Loader`; an epoch has about N / `batch_size` batches.

    Args:
        dataset: anything with `__getitem__` and `__len__`.
        batch_size: the expected number of examples in a batch, from 1 to N.
        num_workers: processes that read; 0 reads in the training process. The batches are the same.
        collate_fn: puts samples together; None is torch's `default_collate`. A batch is `(inputs, targets)`, or of
            another form that may hold a weight.

    Raises:
        TypeError: `dataset` is not map-style.
        ValueError: an argument is out of range.

    References:
        Abadi et al. 2016, "Deep Learning with Differential Privacy", section 3.1; Mironov, Talwar and Zhang 2019,
        "Renyi Differential Privacy of the Sampled Gaussian Mechanism".

    Example:
        >>> from functrain.data.datasets import Arrays
        >>> loader = PoissonLoader(Arrays(torch.arange(64.0), torch.arange(64)), batch_size=16)
        >>> len(loader), loader.sample_rate, [len(weight) for _, _, weight in loader]
        (4, 0.25, [34, 34, 34, 34])
    """

    dataset: Any
    batch_size: int
    _: dataclasses.KW_ONLY
    num_workers: int = 0
    collate_fn: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if not (callable(getattr(self.dataset, "__getitem__", None)) and callable(getattr(self.dataset, "__len__", 0))):
            raise TypeError(f"dataset must have __getitem__ and __len__; got {type(self.dataset).__name__}")
        if not is_integer(self.batch_size, 1) or self.batch_size > len(self.dataset):
            raise ValueError(
                f"batch_size, the expected one, must be a whole number from 1 to the {len(self.dataset)} examples of "
                f"the data set; got {self.batch_size!r}"
            )
        Workers(self.num_workers)

    @property
    def sample_rate(self) -> float:
        """The probability of an example to be in a batch."""
        return self.batch_size / len(self.dataset)

    def __len__(self) -> int:
        return max(1, round(len(self.dataset) / self.batch_size))

    def __iter__(self) -> Iterator[Any]:
        stream = self.stream(root_key(0))
        try:
            yield from stream.batches(0)
        finally:
            stream.close()

    def stream(self, key: int, *, what: str = "train") -> IndexedStream:
        """The micro-batches of all epochs for this key."""
        plan = PoissonPlan(len(self.dataset), self.batch_size)
        collate = _Weighted(self.collate_fn or default_collate)
        return IndexedStream(plan, _Padded(self.dataset), collate, key, Workers(self.num_workers), what)


@dataclasses.dataclass(frozen=True)
class PoissonPlan:
    """Which examples make which micro-batch; `PADDING` fills them up."""

    examples: int
    expected: int
    batched = True
    ragged = False
    weights = None
    lengths = None

    @property
    def batch_size(self) -> int:
        """Rows of a padded batch."""
        deviation = math.sqrt(self.expected * (1 - self.expected / self.examples))
        return min(self.examples, math.ceil(self.expected + DEVIATIONS * deviation))

    @property
    def largest(self) -> int:
        """The same."""
        return self.batch_size

    def length(self, epoch: int) -> int:  # noqa: ARG002 - the same in every epoch
        """The number of micro-batches."""
        return max(1, round(self.examples / self.expected))

    def unshuffled(self) -> "PoissonPlan":
        """This plan: its draws are what it is for."""
        return self

    def drawn(self, key: int, epoch: int, position: int) -> list[int]:
        """The indices of the examples that a batch holds, ascending."""
        uniform = torch.rand(self.examples, generator=generator(fold_in(key, "poisson", epoch, position)))
        found: list[int] = (uniform < self.expected / self.examples).nonzero().flatten().tolist()
        return found

    def tasks(self, key: int, epoch: int, start: int, what: str) -> Iterator[Task]:
        """The epoch's micro-batches from number `start`."""
        check_reached(self.length(epoch), start, epoch, what)
        seen: Counter[int] = Counter()
        for position in range(self.length(epoch)):
            indices = self.drawn(key, epoch, position)
            repeats = [seen[index] for index in indices]
            seen.update(indices)
            padding = -len(indices) % self.batch_size if indices else self.batch_size
            if position >= start:
                yield Task(epoch, position, indices + [PADDING] * padding, (*repeats, *[0] * padding))


class _Padded(Wrapper):
    """Pairs of a sample and whether it is an example; padding repeats the first one."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[Any, float]:
        index = int(index)
        return self.dataset[max(index, 0)], float(index != PADDING)


@dataclasses.dataclass(frozen=True)
class _Weighted:
    """Collates the samples of a padded batch, with a weight of 0 for padding."""

    collate: Callable[[Any], Any]

    def __call__(self, pairs: Sequence[tuple[Any, float]]) -> Any:
        samples = [sample for sample, _ in pairs]
        batch = collated(samples) if self.collate is default_collate else self.collate(samples)
        real = torch.tensor([weight for _, weight in pairs])
        own = unpack(batch).weight
        return with_weight(batch, real if own is None else _zeroed(own, real))


def _zeroed(weight: Tensor, real: Tensor) -> Tensor:
    if len(weight) != len(real):
        raise DataError(f"a batch of {len(real)} examples has {len(weight)} weights; collate_fn must give one for each")
    return torch.where(real.view(-1, *[1] * (weight.ndim - 1)) > 0, weight, 0)
