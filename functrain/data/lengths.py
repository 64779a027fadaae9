"""Sequences of unequal lengths, padded to a few lengths, so that a compiled step meets a few shapes.

The order of the examples stays what it is: nothing is sorted or grouped by length.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from functrain.data.collating import collated
from functrain.foundation.containers import register_containers
from functrain.foundation.errors import DataError
from functrain.foundation.numbers import is_integer
from functrain.foundation.trees import leaves_with_paths, structure, unflatten

Lengths = int | Sequence[int]
IGNORED = -100  # the targets' value: what losses of labels do not count
TARGETS = ("1", "targets", "labels")


def pad_length(batch: Any, pad_to: Lengths, *, fill: Mapping[str, float] | None = None, dim: int = 1) -> Any:
    """The batch with its sequences padded at their end to a multiple of `pad_to`, or to the next of several lengths.

    Which tensors hold sequences: those that `fill` names. Without it, the batch's first tensor that has the dimension
    `dim`, and all that are as long there.

    | what | value |
    |---|---|
    | integer targets (the second of a pair, "targets", "labels") | -100, which losses of labels do not count |
    | other integers (token ids, positions), floating-point inputs | 0 |
    | masks: bool, or integers such as "attention_mask" | False, or 0: not to be attended to |
    | floating-point targets | none: say in `fill` what your loss does not count |

    Padding changes no result where the targets' value does not count and the model does not let padding reach what
    does: a causal model, or one that is given a mask. A bidirectional model without a mask sees the padding.

    Args:
        batch: tensors `[B, T, ...]` in tuples, lists or mappings; others stay as they are.
        pad_to: a multiple; or the lengths that may occur, in ascending order.
        fill: path of a tensor in the batch -> value of its padding, such as `{"0": 3, "1": -100}` or
            `{"input_ids": 3, "attention_mask": 0, "labels": -100}`.
        dim: which dimension is the sequence's.

    Raises:
        ValueError: for a `pad_to` out of range, a path that does not exist, or targets whose padding must be said.
        DataError: if a sequence is longer than all of `pad_to`.

    Example:
        >>> import torch
        >>> pad_length((torch.tensor([[5, 6, 7]]), torch.tensor([[6, 7, 8]])), 4)
        (tensor([[5, 6, 7, 0]]), tensor([[   6,    7,    8, -100]]))
    """
    check_lengths(pad_to)
    register_containers(batch)
    found = leaves_with_paths(batch)
    sequences = _sequences(found, fill, dim)
    if not sequences:
        return batch
    target = next_length(max(leaf.shape[dim] for leaf in sequences.values()), pad_to)
    padded = [
        _extended(leaf, target, dim, _value(path, leaf, fill)) if path in sequences else leaf for path, leaf in found
    ]
    return unflatten(structure(batch), padded)


def next_length(length: int, pad_to: Lengths) -> int:
    """The length that a sequence is padded to.

    Raises:
        DataError: if there is none.

    Example:
        >>> next_length(65, 64), next_length(65, (64, 96, 512))
        (128, 96)
    """
    if isinstance(pad_to, int):
        return length + -length % pad_to
    fitting = [allowed for allowed in pad_to if allowed >= length]
    if not fitting:
        raise DataError(
            f"a sequence of length {length} is longer than all of pad_to={tuple(pad_to)}. Add a greater length, or cut "
            "the sequences in the data set"
        )
    return fitting[0]


def check_lengths(pad_to: Any) -> None:
    """Refuse what is no multiple and no list of lengths.

    Raises:
        ValueError: for such a value.
    """
    given = [pad_to] if isinstance(pad_to, int) else list(pad_to) if isinstance(pad_to, (tuple, list)) else []
    whole = all(is_integer(each, 1) for each in given)
    if not given or not whole or sorted(set(given)) != given:
        raise ValueError(
            "pad_to must be a whole number >= 1, of which lengths become a multiple, or the lengths that may occur, "
            f"in ascending order, such as (64, 128, 256); got {pad_to!r}"
        )


@dataclasses.dataclass(frozen=True)
class PaddedCollate:
    """A `collate_fn` that puts sequences of unequal lengths together, padded to a few lengths.

    For functrain's `Loader` (`Loader(..., pad_to=64)` makes one) and for a plain `torch.utils.data.DataLoader`.

    Args:
        pad_to: as of `pad_length`.
        fill: as of `pad_length`; paths are those in a sample, which are those in a batch.
        collate_fn: puts the samples together, if it pads them itself to the longest of a batch; its batches are then
            padded further, along their second dimension. None: samples are padded along their first, and collated by
            torch's `default_collate`.

    Example:
        >>> import torch
        >>> samples = [(torch.tensor([1, 2, 3]), torch.tensor(0)), (torch.tensor([4]), torch.tensor(1))]
        >>> PaddedCollate(pad_to=4)(samples)
        [tensor([[1, 2, 3, 0],
                [4, 0, 0, 0]]), tensor([0, 1])]
    """

    pad_to: Lengths
    fill: Mapping[str, float] | None = None
    collate_fn: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        """Refuse lengths that make no sense."""
        check_lengths(self.pad_to)

    def __call__(self, samples: Any) -> Any:
        """The batch."""
        if self.collate_fn is not None:
            return pad_length(self.collate_fn(samples), self.pad_to, fill=self.fill)
        register_containers(samples)
        found = [dict(leaves_with_paths(sample)) for sample in samples]
        sequences = [_sequences(list(leaves.items()), self.fill, 0) for leaves in found]
        paths = set(sequences[0]).intersection(*sequences[1:])
        lengths = {leaf.shape[0] for each in sequences for path, leaf in each.items() if path in paths}
        if not lengths:
            return collated(samples)
        target = next_length(max(lengths), self.pad_to)
        padded = [
            [
                _extended(leaf, target, 0, _value(path, leaf, self.fill)) if path in paths else leaf
                for path, leaf in leaves.items()
            ]
            for leaves in found
        ]
        return collated([unflatten(structure(sample), rows) for sample, rows in zip(samples, padded)])


def _sequences(found: Sequence[tuple[str, Any]], fill: Mapping[str, float] | None, dim: int) -> dict[str, Tensor]:
    """Path -> tensor of those that are padded."""
    if fill is None:
        tensors = [(path, leaf) for path, leaf in found if isinstance(leaf, Tensor) and leaf.ndim > dim]
        return {path: leaf for path, leaf in tensors if leaf.shape[dim] == tensors[0][1].shape[dim]}
    named = {path: leaf for path, leaf in found if path in fill}
    if missing := fill.keys() - named.keys():
        raise ValueError(
            f"fill names {', '.join(map(repr, sorted(missing)))}, but the batch's parts are "
            f"{', '.join(repr(path) for path, _ in found)}"
        )
    for path, leaf in named.items():
        if not isinstance(leaf, Tensor) or leaf.ndim <= dim:
            given = f"a tensor {list(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
            raise ValueError(f"fill names {path!r}, which has no dimension {dim} to pad: it is {given}")
    return named


def _value(path: str, leaf: Tensor, fill: Mapping[str, float] | None) -> float:
    if fill is not None:
        return fill[path]
    if path.split("/")[0] not in TARGETS:
        return 0
    if leaf.dtype.is_floating_point:
        raise ValueError(
            f"the targets at {path!r} are floating-point numbers for each position, and which of their values the loss "
            f"does not count is not known. Say it: fill={{..., {path!r}: -100.0}} for losses with ignore_index=-100"
        )
    return IGNORED


def _extended(leaf: Tensor, target: int, dim: int, value: float) -> Tensor:
    """Longer at the end of one dimension."""
    missing = target - leaf.shape[dim]
    if missing < 0:
        raise ValueError(f"a tensor {list(leaf.shape)} is longer along dimension {dim} than the sequences, {target}")
    return F.pad(leaf, (0, 0) * (leaf.ndim - 1 - dim) + (0, missing), value=value) if missing else leaf
