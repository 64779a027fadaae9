"""Mean 0 and standard deviation 1, as measured on the training split."""

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor

from functrain.data.gathering import gather_from
from functrain.data.transforms.noise import require_floating
from functrain.data.transforms.parts import changed, part_at, parts_of
from functrain.foundation.errors import DataError
from functrain.foundation.numbers import is_integer
from functrain.foundation.trees import node, static

AT_ONCE = 256  # samples that are read before their sums are added


@node
class Standardise:
    """Subtracts a mean and divides by a standard deviation that were measured on the training split.

    It is a pytree of two tensors: a `Checkpointer` saves it, and `tree_map` reaches into it. `inverse` undoes it.

    Attributes:
        mean, std: of a shape that broadcasts with the tensor: `[F]`, or `[C, 1, 1]` of images.
        of: path of the tensor in a sample; None: the first of a tuple, or "inputs".

    Example:
        >>> from functrain.data import Arrays, Transformed
        >>> train = Arrays(torch.tensor([[0.0, 5.0], [2.0, 5.0]]), torch.tensor([0, 1]))
        >>> standardise = Standardise.fit(train)  # fit on the training split, apply to all
        >>> standardise.mean, standardise.std  # a constant feature keeps its unit
        (tensor([1., 5.]), tensor([1., 1.]))
        >>> Transformed(train, standardise)[1]
        (tensor([1., 0.]), tensor(1))
    """

    mean: Tensor
    std: Tensor
    of: str | None = static(default=None)

    @classmethod
    def fit(cls, dataset: Any, *, of: str | None = None, per: int | None = 0) -> Self:
        """Measure mean and standard deviation over a data set: that of the training split.

        Args:
            dataset: map-style. Each sample is read once, or tensors in memory as a whole.
            of: path of the tensor in a sample; None: the first of a tuple, or "inputs".
            per: the dimension of a sample's tensor of which each entry has a mean of its own: 0 is the features of
                `[F]` and the channels of `[C, H, W]`. None: one mean for all numbers.

        Returns:
            The transform. Sums are taken in float64. The standard deviation divides by the number of values; where it
            is 0, 1 is taken.

        Raises:
            DataError: if the data set is empty, or a value is NaN or infinite.
            ValueError: for a dimension that does not exist, or samples of unequal shapes along it.
        """
        if per is not None and not is_integer(per):
            raise ValueError(f"per must be a dimension of the tensor or None, got {per!r}")
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())
        shape: tuple[int, ...] = ()
        for first, block in _blocks(dataset, of):
            require_floating("Standardise", block)
            values, shape = _by_entry(block, per)
            if not values.isfinite().all():
                bad = (~block.flatten(1).isfinite().all(1)).nonzero()[0].item()
                raise DataError(f"example {first + int(bad)} has a value that is NaN or infinite: no mean is known")
            if count and len(values) != len(mean):
                raise ValueError(
                    f"samples have {len(mean)} and {len(values)} entries along dimension {per}: take per=None"
                )
            # Chan, Golub, LeVeque 1979: means and squared deviations of two parts.
            size, own = values.shape[1], values.mean(1)
            apart = own - mean
            squares = (
                squares + (values - own[:, None]).square().sum(1) + apart.square() * (count * size / (count + size))
            )
            mean, count = mean + apart * (size / (count + size)), count + size
        if not count:
            raise DataError("the data set is empty: there is nothing to measure a mean of")
        std = (squares / count).sqrt()
        std = torch.where(std > 0, std, 1.0)
        return cls(mean.view(shape).float(), std.view(shape).float(), of)

    def __call__(self, sample: Any, key: int = 0) -> Any:  # noqa: ARG002 - nothing is random
        """The sample, standardised."""

        def standardised(value: Tensor) -> Tensor:
            require_floating("Standardise", value)
            return (value - self.mean) / self.std

        return changed(sample, self.of, standardised)

    def inverse(self, sample: Any) -> Any:
        """The sample in the data's own unit."""
        return changed(sample, self.of, lambda value: value * self.std + self.mean)


def _blocks(dataset: Any, of: str | None) -> Iterator[tuple[int, Tensor]]:
    """Number of the first sample, and the part `[B, ...]` of some; samples of several shapes come one by one."""
    gather = gather_from(dataset)
    place = 0 if of is None else int(of) if of.isdecimal() else None
    if gather is not None and place is not None and place < len(gather.tensors):
        yield 0, gather(torch.arange(len(dataset)))[place]  # type: ignore[index]
        return
    held: list[Tensor] = []
    for index in range(len(dataset)):
        sample = dataset[index]
        (path,) = parts_of(sample, of)
        held.append(part_at(sample, path))
        if len(held) == AT_ONCE or held[0].shape != held[-1].shape:
            yield from _stacked(held, index)
            held = []
    if held:
        yield from _stacked(held, len(dataset) - 1)


def _stacked(held: list[Tensor], last: int) -> Iterator[tuple[int, Tensor]]:
    first = last + 1 - len(held)
    if all(value.shape == held[0].shape for value in held):
        yield first, torch.stack(held)
        return
    yield from ((first + place, value[None]) for place, value in enumerate(held))


def _by_entry(block: Tensor, per: int | None) -> tuple[Tensor, tuple[int, ...]]:
    """The values `[entries, N]` of a block `[B, ...]` in float64, and the shape that their statistics have."""
    dims = block.ndim - 1
    if per is None:
        return block.double().reshape(1, -1), ()
    if not -dims <= per < dims:
        raise ValueError(
            f"per={per}: a sample's tensor has the shape {list(block.shape[1:])}; take per=None for numbers"
        )
    dim = per % dims
    values = block.double().movedim(dim + 1, 0).flatten(1)
    return values, (-1, *[1] * (dims - 1 - dim))
