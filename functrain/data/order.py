"""The order of the examples as arithmetic: a function of (key, epoch, position) and nothing else.

Pure.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from functrain.data.length_groups import grouped_order
from functrain.data.sampling import weighted_order
from functrain.foundation.keys import fold_in, generator

VIEWS_AT_ONCE = 1024  # bounds the memory of the views, about 0.5 kB each; no meaning for the order


def epoch_order(
    key: int,
    epoch: int,
    length: int,
    shuffle: bool,
    *,
    num_samples: int | None = None,
    replacement: bool = False,
    weights: Tensor | None = None,
    lengths: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """The indices of the examples in the order in which epoch `epoch` visits them.

    Args:
        key: the key of the run's data.
        epoch: 0, 1, ...; every epoch has a permutation of its own.
        length: number of examples, >= 0.
        shuffle: False gives 0, 1, ..., length - 1 in every epoch.
        num_samples: how many indices an epoch has if not `length`; more than `length` of them are
            drawn as whole permutations and a part of one. Shuffled orders only.
        replacement: draw each index independently of the others. Shuffled orders only.
        weights: draw so, and each index as often as its weight says, float64 `[length]`. Shuffled orders only.
        lengths: of the examples, int64 `[length]`: those of a batch are similar; see `functrain.data.length_groups`.
        batch_size: of these batches.

    Returns:
        int64 `[num_samples]`.

    Example:
        >>> epoch_order(1, 0, 4, shuffle=False)
        tensor([0, 1, 2, 3])
        >>> epoch_order(1, 0, 4, shuffle=True).sort().values
        tensor([0, 1, 2, 3])
    """
    if not shuffle:
        return torch.arange(length)
    if lengths is not None and batch_size is not None:
        return grouped_order(lengths, batch_size, fold_in(key, "order", epoch))
    count = length if num_samples is None else num_samples
    draws = generator(fold_in(key, "order", epoch))
    if weights is not None:
        return weighted_order(weights, count, draws)
    if replacement:
        return torch.randint(length, (count,), generator=draws)
    rounds = max(1, -(-count // length)) if length else 1
    permutations = [torch.randperm(length, generator=draws) for _ in range(rounds)]
    return permutations[0][:count] if rounds == 1 else torch.cat(permutations)[:count]


def batch_count(length: int, batch_size: int, drop_last: bool) -> int:
    """How many micro-batches `length` examples make.

    Example:
        >>> batch_count(10, 4, drop_last=False), batch_count(10, 4, drop_last=True)
        (3, 2)
    """
    return length // batch_size if drop_last else -(-length // batch_size)


def batch_indices(order: Tensor, batch_size: int, position: int, drop_last: bool) -> Tensor:
    """The part of `order` that makes micro-batch number `position`.

    Args:
        order: indices of the epoch, `[N]`.
        batch_size: examples in a full micro-batch.
        position: number of the micro-batch within the epoch, from 0.
        drop_last: whether a last micro-batch of fewer examples does not count.

    Returns:
        A view of `order`, `[batch_size]`, or shorter for a ragged last micro-batch.

    Raises:
        IndexError: if the epoch has no such micro-batch.

    Example:
        >>> batch_indices(torch.arange(10), 4, 2, drop_last=False)
        tensor([8, 9])
    """
    count = batch_count(len(order), batch_size, drop_last)
    if not 0 <= position < count:
        raise IndexError(f"position must lie in 0..{count - 1}, the micro-batches of this epoch; got {position}")
    return order[position * batch_size : (position + 1) * batch_size]


def batches_from(order: Tensor, batch_size: int, start: int) -> Iterator[Tensor]:
    """`batch_indices` for every position from `start`, three times as fast: views are made in blocks.

    Example:
        >>> [rows.tolist() for rows in batches_from(torch.arange(10), 4, 1)]
        [[4, 5, 6, 7], [8, 9]]
    """
    for first in range(start * batch_size, len(order), VIEWS_AT_ONCE * batch_size):
        yield from order[first : first + VIEWS_AT_ONCE * batch_size].split(batch_size)
