"""Index splits: plain, stratified by label, or by group."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from functrain.data.group_parts import assign_groups
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in, permutation, root_key


def split(
    labels: int | Sequence[Any] | np.ndarray | Tensor,
    fractions: Sequence[float],
    *,
    seed: int,
    stratify: bool | None = None,
    groups: Sequence[Any] | np.ndarray | Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Divide the examples 0..N-1 at random into disjoint parts.

    Args:
        labels: the label of each example, `[N]`, or just the number of examples.
        fractions: share of each part, positive, with sum 1, for example (0.8, 0.2).
        seed: the split is a function of the seed and the labels or groups.
        stratify: give every part its share of each label, to within one example; with groups, as nearly as
            whole groups allow. None: if labels were given and no groups.
        groups: the group of each example (patient, speaker, document), `[N]`: no group is divided,
            and the shares hold as nearly as whole groups allow.

    Returns:
        For each fraction the indices of its part, int64, ascending.

    Raises:
        ValueError: if the fractions or the combination of arguments make no sense.
        DataError: if a part would be empty.

    Example:
        >>> train, val = split([0, 0, 0, 0, 1, 1, 1, 1], (0.75, 0.25), seed=0)
        >>> len(train), len(val), sorted(train.tolist() + val.tolist())
        (6, 2, [0, 1, 2, 3, 4, 5, 6, 7])
    """
    shares = _checked_fractions(fractions)
    length = labels if isinstance(labels, int) else len(labels)
    if stratify is None:
        stratify = not isinstance(labels, int) and groups is None
    if stratify and isinstance(labels, int):
        raise ValueError(
            "stratify=True needs the label of each example as first argument, not only their number. Pass the labels, "
            "or stratify=False"
        )
    if groups is not None and len(groups) != length:
        raise ValueError(f"groups needs one entry for each of the {length} examples, got {len(groups)}")
    shuffled = permutation(fold_in(root_key(seed), "split"), length).numpy()
    if groups is not None and stratify:
        parts = assign_groups(label_codes(groups), label_codes(labels), shuffled, shares)
    elif groups is not None:
        codes = label_codes(groups)
        parts = _assign_groups(codes, shuffled, shares)
        if 0 in np.bincount(parts, minlength=len(shares)):  # a small share that no group comes to by itself
            parts = assign_groups(codes, np.zeros(length, int), shuffled, shares)
    else:
        parts = _assign_rows(label_codes(labels) if stratify else np.zeros(length, int), shuffled, shares)
    sizes = np.bincount(parts, minlength=len(shares)).tolist()
    if 0 in sizes:
        unit = "examples" if groups is None else "groups"
        raise DataError(
            f"splitting {length} examples by {tuple(fractions)} leaves a part empty (sizes {sizes}): "
            f"use more {unit}, fewer parts or a larger fraction"
        )
    return tuple(torch.from_numpy(np.flatnonzero(parts == part)) for part in range(len(shares)))


def _assign_rows(codes: np.ndarray, shuffled: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The part of each row. Every label gets its shares rounded down; the rows that are left over go, one
    a part, to the parts that are furthest behind in total, so no label and no total strays by one or more
    than rounding must."""
    parts = np.empty(len(codes), int)
    given, wanted = np.zeros(len(shares)), np.zeros(len(shares))
    for code in range(codes.max(initial=-1) + 1):
        rows = shuffled[codes[shuffled] == code]
        exact = len(rows) * shares
        counts = np.floor(exact + 1e-9).astype(int)
        wanted += exact
        behind = np.where(exact - counts > 1e-9, wanted - given - counts, -np.inf)
        counts[np.argsort(-behind, kind="stable")[: len(rows) - counts.sum()]] += 1
        given += counts
        parts[rows] = np.repeat(np.arange(len(shares)), counts)
    return parts


def _assign_groups(codes: np.ndarray, shuffled: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The part of each row; groups, the largest first, go to the part that is furthest behind."""
    sizes = np.bincount(codes)
    at_random = codes[shuffled][np.sort(np.unique(codes[shuffled], return_index=True)[1])]
    part_of_group, missing = np.empty(len(sizes), int), len(codes) * shares
    for group in at_random[np.argsort(-sizes[at_random], kind="stable")]:
        part_of_group[group] = np.argmax(missing)
        missing[part_of_group[group]] -= sizes[group]
    return part_of_group[codes]


def label_codes(labels: Any) -> np.ndarray:
    """Labels of any kind as 0, 1, ..., in their sorted order.

    Args:
        labels: the label, or group, of each example, `[N]`: numbers or names.

    Returns:
        int64 `[N]`.

    Raises:
        ValueError: for another shape.

    Example:
        >>> label_codes(["cat", "dog", "cat"])
        array([0, 1, 0])
    """
    array = labels.numpy(force=True) if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(f"one label or group for each example is needed, shape [N]; got shape {list(array.shape)}")
    try:
        return np.unique(array, return_inverse=True)[1]
    except TypeError as error:
        raise ValueError(f"labels and groups must be of one kind, all numbers or all names: {error}") from None


def _checked_fractions(fractions: Sequence[float]) -> np.ndarray:
    shares = np.asarray(fractions, float)
    if shares.ndim != 1 or len(shares) == 0 or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions must be positive and have the sum 1, got {tuple(fractions)}")
    return shares
