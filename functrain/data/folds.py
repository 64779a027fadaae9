"""k-fold cross-validation: each example is in the validation part of one fold."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from functrain.data.splits import label_codes, split
from functrain.foundation.errors import DataError
from functrain.foundation.numbers import is_integer


class Fold(NamedTuple):
    """The examples of a fold.

    Attributes:
        train: indices of those that are trained on, int64, ascending.
        val: indices of the others, likewise.
    """

    train: Tensor
    val: Tensor


def k_fold(
    labels: int | Sequence[Any] | np.ndarray | Tensor,
    folds: int,
    *,
    seed: int,
    stratify: bool | None = None,
    groups: Sequence[Any] | np.ndarray | Tensor | None = None,
) -> tuple[Fold, ...]:
    """Divide the examples 0..N-1 at random into parts of equal size, each of which validates once.

    Args:
        labels: the label of each example, `[N]`, or just the number of examples.
        folds: how many, 2 or more.
        seed: the folds are a function of the seed and the labels and groups.
        stratify: give every part its share of each label; None: if labels were given and no groups. With groups it
            holds as nearly as whole groups allow.
        groups: the group of each example (patient, speaker, document), `[N]`: no group is in two parts.

    Returns:
        The folds.

    Raises:
        ValueError: if the arguments make no sense together.
        DataError: if there are fewer examples, or groups, than folds; or each label has fewer examples than folds.

    Example:
        >>> folds = k_fold([0, 0, 0, 1, 1, 1], 3, seed=0)
        >>> [fold.val.tolist() for fold in folds] == [sorted(fold.val.tolist()) for fold in folds]
        True
        >>> sorted(index for fold in folds for index in fold.val.tolist())
        [0, 1, 2, 3, 4, 5]
    """
    if not is_integer(folds, 2):
        raise ValueError(f"folds must be a whole number >= 2, got {folds!r}")
    length = labels if isinstance(labels, int) else len(labels)
    units, count = ("examples", length) if groups is None else ("groups", len(set(label_codes(groups).tolist())))
    if count < folds:
        raise DataError(f"{folds} folds need at least {folds} {units}, there are {count}: take fewer folds")
    stratified = stratify or (stratify is None and groups is None)
    if stratified and not isinstance(labels, int):
        most = int(np.bincount(label_codes(labels)).max())
        if most < folds:
            raise DataError(
                f"no label has as many examples as there are folds ({most} at most, {folds} folds), so labels cannot "
                "be shared out. Take fewer folds, or stratify=False if the labels are quantities"
            )
    parts = split(labels, [1 / folds] * folds, seed=seed, stratify=stratify, groups=groups)
    everything = torch.arange(length)
    return tuple(Fold(everything[~torch.isin(everything, part)], part) for part in parts)
