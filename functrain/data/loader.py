"""functrain's own loader: a frozen description of how a data set becomes micro-batches."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate

from functrain.data.indexed import IndexedStream, Workers
from functrain.data.length_groups import checked_lengths
from functrain.data.lengths import PaddedCollate, check_lengths
from functrain.data.order import batch_count
from functrain.data.plans import ArithmeticPlan, loader_name
from functrain.data.sampling import checked_weights
from functrain.data.transforms import TransformedBatch
from functrain.foundation.errors import DataError
from functrain.foundation.keys import root_key
from functrain.foundation.numbers import is_integer


@dataclasses.dataclass(frozen=True, eq=False)
class Loader:
    """Micro-batches of a map-style data set, in an order that is a function of (key, epoch, position).

    `functrain.fit` supplies the key. Iterating over the loader itself gives epoch 0 of a fixed key,
    the same batches every time: for a look at the data, not for training.

    Args:
        dataset: anything with `__getitem__` and `__len__`. What a sample draws from the global generators of
            torch, NumPy or Python, or from a generator that is an attribute of the data set, is a function of
            the key, the epoch and its index.
        batch_size: examples in a full micro-batch.
        shuffle: a new permutation for each epoch, or the data set's order.
        sampling_weights: draw examples with replacement, each as often as its weight says (see `balanced_weights`):
            numbers `[N]`, 0 or more, of any sum. For rare classes; evaluate without them.
        lengths: of the examples, whole numbers `[N]`: the examples of a batch are of similar length, so that they need
            little padding; the batches come in a random order. Needs `shuffle`, and `pad_to` or a `collate_fn`.
        num_samples: examples in an epoch, if not as many as the data set has; needs `shuffle`.
        drop_last: leave out the last micro-batch of an epoch if it is not full.
        num_workers: processes that read; 0 reads in the training process. The batches are the same.
        collate_fn: puts samples together; None is torch's `default_collate`.
        pad_to: pad sequences of unequal lengths to a multiple of it, or to the next of several lengths, so that a
            compiled step meets few shapes; see `functrain.data.pad_length`. None: lengths stay as they are.
        fill: which tensors `pad_to` pads, and with what: path -> value, such as `{"0": 3, "1": -100}`.
        batch_transform: a function of the batch and a key, such as `functrain.data.transforms.MixUp(classes=10)`. The
            key is a function of the run's key, the epoch and the batch's position.
        pin_memory: hand out batches in page-locked memory, where there is an accelerator.
        persistent_workers: start workers once, not once an epoch.
        prefetch_factor: batches that each worker reads ahead; None is torch's 2.

    Raises:
        TypeError: if `dataset` is not map-style.
        ValueError: if an argument is out of range, or weights are given without `shuffle`.
        DataError: if there is no batch.

    Example:
        >>> import torch
        >>> from functrain.data.datasets import Arrays
        >>> loader = Loader(Arrays(torch.arange(5.0), torch.arange(5)), batch_size=2, shuffle=False)
        >>> len(loader), [targets.tolist() for _, targets in loader]
        (3, [[0, 1], [2, 3], [4]])
    """

    dataset: Any
    batch_size: int
    _: dataclasses.KW_ONLY
    shuffle: bool = True
    sampling_weights: Tensor | Sequence[float] | np.ndarray | None = None
    lengths: Tensor | Sequence[int] | np.ndarray | None = None
    num_samples: int | None = None
    drop_last: bool = False
    num_workers: int = 0
    collate_fn: Callable[[Any], Any] | None = None
    pad_to: int | Sequence[int] | None = None
    fill: Mapping[str, float] | None = None
    batch_transform: Callable[[Any, int], Any] | None = None
    pin_memory: bool = False
    persistent_workers: bool = False
    prefetch_factor: int | None = None

    def __post_init__(self) -> None:
        _check_dataset(self.dataset)
        self._check_counts()
        self._check_combinations()
        if self.sampling_weights is not None and len(self.dataset):
            object.__setattr__(self, "sampling_weights", checked_weights(self.sampling_weights, len(self.dataset)))
        if self.lengths is not None:
            object.__setattr__(self, "lengths", checked_lengths(self.lengths, len(self.dataset)))
        if len(self) == 0:
            raise DataError(
                f"the data set ({type(self.dataset).__name__}) has {len(self.dataset)} examples, which make no batch "
                f"with batch_size={self.batch_size}, drop_last={self.drop_last}. Check the path or filter that it "
                "is made from; lower batch_size or set drop_last=False"
            )

    def _check_counts(self) -> None:
        for name, least in (("batch_size", 1), ("num_workers", 0), ("num_samples", 1), ("prefetch_factor", 1)):
            value = getattr(self, name)
            optional = name in ("num_samples", "prefetch_factor")
            if not (is_integer(value, least) or (optional and value is None)):
                raise ValueError(f"{name} must be an integer >= {least}{' or None' * optional}, got {value!r}")
        Workers(self.num_workers)  # refuses a number that no machine is meant to start

    def _check_combinations(self) -> None:
        if not self.num_workers and (self.persistent_workers or self.prefetch_factor is not None):
            raise ValueError("persistent_workers and prefetch_factor need num_workers >= 1, got num_workers=0")
        if self.pad_to is not None:
            check_lengths(self.pad_to)
        elif self.fill is not None:
            raise ValueError("fill says what pad_to pads with: give pad_to too")
        for name in ("sampling_weights", "num_samples", "lengths"):
            if getattr(self, name) is not None and not self.shuffle:
                raise ValueError(f"{name} needs shuffle=True: without it an epoch is the data set in its own order")
        for name in ("sampling_weights", "num_samples"):
            if self.lengths is not None and getattr(self, name) is not None:
                raise ValueError(f"lengths group the examples of an epoch, {name} draws others: give one of them")
        if self.batch_transform is not None:
            TransformedBatch(self.batch_transform)  # refuses what is no function

    def __len__(self) -> int:
        examples = len(self.dataset)
        if self.num_samples is not None and examples:
            examples = self.num_samples
        return batch_count(examples, self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        stream = self.stream(root_key(0))
        try:
            yield from stream.batches(0)
        finally:
            stream.close()

    def stream(self, key: int, *, what: str = "train") -> IndexedStream:
        """The micro-batches of all epochs for this key.

        Args:
            key: the key of the run's data.
            what: name of the loader in messages: "train", or that of an argument, "eval_loader".

        Example:
            >>> import torch
            >>> from functrain.data.datasets import Arrays
            >>> stream = Loader(Arrays(torch.arange(9)), batch_size=2).stream(key=1)
            >>> whole = [rows.tolist() for [rows] in stream.batches(epoch=3)]
            >>> [rows.tolist() for [rows] in stream.batches(epoch=3, start=2)] == whole[2:]
            True
        """
        weights, lengths = self.sampling_weights, self.lengths
        assert weights is None or isinstance(weights, Tensor)
        assert lengths is None or isinstance(lengths, Tensor)
        plan = ArithmeticPlan(
            self.dataset,
            self.batch_size,
            self.drop_last,
            self.shuffle,
            self.num_samples,
            weights=weights,
            lengths=lengths,
        )
        workers = Workers(self.num_workers, self.pin_memory, self.persistent_workers, self.prefetch_factor)
        collate_fn = self.collate_fn
        if self.pad_to is not None:
            collate_fn = PaddedCollate(self.pad_to, self.fill, collate_fn)
        if self.batch_transform is not None:
            collate_fn = TransformedBatch(self.batch_transform, collate_fn)
        return IndexedStream(plan, self.dataset, collate_fn or default_collate, key, workers, loader_name(what))


def _check_dataset(dataset: Any) -> None:
    if isinstance(dataset, tuple) and any(isinstance(part, Tensor | np.ndarray) for part in dataset):
        raise TypeError(
            "Loader needs a data set, got a tuple of arrays, which would count as one example each; give "
            "Loader(Arrays(inputs, targets), batch_size)"
        )
    map_style = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not map_style or isinstance(dataset, IterableDataset):
        raise TypeError(
            f"Loader needs a data set with __getitem__ and __len__, got {type(dataset).__name__}; "
            "give an IterableDataset to torch.utils.data.DataLoader, and that to functrain"
        )
