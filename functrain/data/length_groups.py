"""Batches of examples of similar length, in an order that is a function of (key, epoch, lengths, batch size).

The examples are shuffled and divided into blocks of many batches. Each block is sorted by length and cut into batches;
the batches of all blocks are then shuffled. So a batch needs little padding, and its length says nothing about that of
the next one.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from functrain.data.datasets import Wrapper
from functrain.foundation.keys import fold_in, generator, permutation

MOST_PADDING = 0.05  # share of a batch's positions; blocks are made larger until it is reached
MOST_CORRELATION = 0.15  # of the mean lengths of neighbouring batches; they are shuffled again until it is reached
FEWEST_IN_BLOCK = 64  # batches: the more, the less padding, and the fewer companions an example may have
ATTEMPTS = 100


def grouped_order(lengths: Tensor, batch_size: int, key: int) -> Tensor:
    """The order of the examples of an epoch.

    Args:
        lengths: of the examples, int64 `[N]`.
        batch_size: examples in a full batch.
        key: of the epoch.

    Returns:
        A permutation, int64 `[N]`. Consecutive batches of it have at most 5 % of padding, or as little as sorting all
        examples leaves, if that is more. The mean lengths of neighbouring batches correlate by 0.15 at most. The
        examples of a smaller last batch are of similar length, too; which length, is random.

    Example:
        >>> order = grouped_order(torch.tensor([9, 1, 8, 2, 1, 9]), 2, key=0)
        >>> sorted(order.tolist()), padding_share(torch.tensor([9, 1, 8, 2, 1, 9])[order], 2) < 0.2
        ([0, 1, 2, 3, 4, 5], True)
    """
    count, full = len(lengths), len(lengths) // batch_size
    shuffled = permutation(fold_in(key, "examples"), count)
    if not full:
        return shuffled
    in_block = FEWEST_IN_BLOCK
    while True:
        order = _by_blocks(lengths, shuffled, batch_size, in_block, key)
        if in_block >= full or padding_share(lengths[order], batch_size) <= MOST_PADDING:
            break
        in_block *= 2
    batches, rest = order[: full * batch_size].view(full, batch_size), order[full * batch_size :]
    means = lengths[batches].double().mean(1)
    for attempt in range(ATTEMPTS):
        places = permutation(fold_in(key, "batches", attempt), full)
        if neighbour_correlation(means[places]) <= MOST_CORRELATION:
            break
    # Ranks share a batch: none of them gets its shortest examples.
    within = torch.rand(full, batch_size, generator=generator(fold_in(key, "rows"))).argsort(dim=1, stable=True)
    return torch.cat([batches[places].gather(1, within).flatten(), rest])


def _by_blocks(lengths: Tensor, shuffled: Tensor, batch_size: int, in_block: int, key: int) -> Tensor:
    """Full batches, each sorted by length, and at the end the smaller one if there is one."""
    count, full = len(lengths), len(lengths) // batch_size
    blocks = max(1, full // in_block)
    size = full // blocks * batch_size
    first, last = shuffled[: (blocks - 1) * size].view(blocks - 1, size), shuffled[(blocks - 1) * size :]
    first = first.gather(1, lengths[first].argsort(dim=1, stable=True)).flatten()
    last = last[lengths[last].argsort(stable=True)]
    # The examples of the smaller batch are neighbours in length: any, so that drop_last leaves out others each time.
    rest = count % batch_size
    begin = int(torch.randint(len(last) // batch_size + 1, (), generator=generator(fold_in(key, "rest")))) * batch_size
    return torch.cat([first, last[:begin], last[begin + rest :], last[begin : begin + rest]])


def padding_share(lengths: Tensor, batch_size: int) -> float:
    """The share of positions that are padding, if consecutive batches are padded to their longest example.

    Example:
        >>> padding_share(torch.tensor([1, 3, 4, 4]), 2)
        0.1428...
    """
    full = len(lengths) // batch_size * batch_size
    positions = int(lengths[:full].view(-1, batch_size).amax(1).sum()) * batch_size if full else 0
    rest = lengths[full:]
    positions += int(rest.max()) * len(rest) if len(rest) else 0
    return 1.0 - int(lengths.sum()) / positions if positions else 0.0


def neighbour_correlation(values: Tensor) -> float:
    """Pearson's correlation of each value with the next; 0 if it has none.

    Example:
        >>> neighbour_correlation(torch.tensor([1.0, 2.0, 3.0, 4.0])), neighbour_correlation(torch.ones(4))
        (1.0, 0.0)
    """
    before, after = (part - part.mean() for part in (values[:-1].double(), values[1:].double()))
    spread = (before.square().sum() * after.square().sum()).sqrt()
    return float((before * after).sum() / spread) if len(values) > 2 and spread > 0 else 0.0


def checked_lengths(lengths: Any, length: int) -> Tensor:
    """The lengths of a data set's examples as int64 `[N]`.

    Raises:
        TypeError: if they are no whole numbers.
        ValueError: if there is not one for each example, or one is negative.
    """
    try:
        given = torch.as_tensor(lengths, device="cpu").detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"lengths must be whole numbers, one for each example; got {type(lengths).__name__}") from error
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"lengths must be whole numbers, one for each example; got {given.dtype}")
    if list(given.shape) != [length]:
        raise ValueError(
            f"lengths must be one number for each of the {length} examples; got the shape {list(given.shape)}"
        )
    if length and int(given.min()) < 0:
        raise ValueError(f"lengths must be 0 or more; that of example {int(given.argmin())} is {int(given.min())}")
    return given.long()


def lengths_of(dataset: Any) -> Any:
    """The length of each example, without reading one: the data set's attribute `lengths`; of a subset its part's.

    Args:
        dataset: map-style.

    Raises:
        TypeError: if the data set has none.

    Example:
        >>> class Texts(torch.utils.data.Dataset):
        ...     lengths = [3, 5, 2]
        >>> lengths_of(Subset(Texts(), [2, 0]))
        [2, 3]
    """
    if isinstance(dataset, Subset):
        of_all = lengths_of(dataset.dataset)
        return [int(of_all[index]) for index in dataset.indices]
    if isinstance(dataset, Wrapper):
        return lengths_of(dataset.dataset)
    lengths: Any = getattr(dataset, "lengths", None)
    if lengths is None:
        raise TypeError(
            f"the data set ({type(dataset).__name__}) does not say its lengths: give it an attribute `lengths`, the "
            "length of each example in their order"
        )
    return lengths
