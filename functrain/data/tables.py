"""Tables of real measurements, which ship with scikit-learn."""

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from functrain.data.datasets import SPLITS, Arrays
from functrain.data.splits import split as index_split
from functrain.foundation.keys import fold_in, permutation, root_key

FRACTIONS = (0.5, 0.2, 0.3)


def breast_cancer(split: str = "train", *, malignant: float = 1.0, seed: int = 0) -> Arrays:
    """The 569 breast tumours of scikit-learn: 30 measurements of cell nuclei, and whether the tumour is malignant.

    They are split 50/20/30 with equal shares of malignant ones, 212 in all.

    Args:
        split: "train", "val" or "test".
        malignant: share of the malignant tumours that is kept, in every split: with 0.25 they are one in eight.
        seed: of the choice and of the split.

    Returns:
        Measurements, float32 `[N, 30]`, with mean 0 and standard deviation 1 over the training split; and labels,
        int64 `[N]`, 1 for malignant.

    Raises:
        ValueError: if an argument is out of range.
        ModuleNotFoundError: without scikit-learn.

    References:
        Wolberg, Mangasarian, Street and Street, Breast Cancer Wisconsin (Diagnostic), UCI repository, 1995,
        doi:10.24432/C5DW2B, CC BY 4.0.
    """
    if not 0.0 < malignant <= 1.0:
        raise ValueError(f"malignant must be above 0 and at most 1, got {malignant!r}")
    values, benign = _scikit_learn().load_breast_cancer(return_X_y=True)
    labels = torch.from_numpy(benign == 0)
    chosen = _thinned(labels, malignant, seed)
    values, labels = torch.from_numpy(values)[chosen], labels[chosen]
    parts = index_split(labels, FRACTIONS, seed=seed)
    rows = parts[_place(split)]
    return Arrays(_scaled(values, parts[0])[rows], labels[rows].long())


def _thinned(labels: Tensor, share: float, seed: int) -> Tensor:
    """All rows with label 0 and a share of those with label 1, ascending."""
    marked = labels.nonzero().squeeze(1)
    order = permutation(fold_in(root_key(seed), "kept"), len(marked))
    kept = marked[order[: max(1, round(share * len(marked)))]]
    return torch.cat([(~labels).nonzero().squeeze(1), kept]).sort().values


def diabetes(split: str = "train", *, seed: int = 0) -> Arrays:
    """The 442 diabetes patients of scikit-learn: 10 measurements, and how far the disease went within a year.

    They are split 50/20/30 at random.

    Args:
        split: "train", "val" or "test".
        seed: of the split.

    Returns:
        Measurements, float32 `[N, 10]`, and the progression, float32 `[N, 1]`, each with mean 0 and standard deviation
        1 over the training split. One standard deviation of the progression is some 77 points.

    Raises:
        ValueError: for another split.
        ModuleNotFoundError: without scikit-learn.

    References:
        Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, Annals of Statistics 32, 2004.
    """
    found = _scikit_learn().load_diabetes(return_X_y=True, scaled=False)
    values, progression = (torch.from_numpy(np.ascontiguousarray(each, float)) for each in found)
    parts = index_split(len(values), FRACTIONS, seed=seed)
    rows = parts[_place(split)]
    return Arrays(_scaled(values, parts[0])[rows], _scaled(progression.unsqueeze(1), parts[0])[rows])


def _scaled(values: Tensor, training: Tensor) -> Tensor:
    """Columns with mean 0 and standard deviation 1 over the training rows, as float32."""
    known = values[training]
    return ((values - known.mean(0)) / known.std(0, correction=0)).float()


def _place(split: str) -> int:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(map(repr, SPLITS))}, got {split!r}")
    return SPLITS.index(split)


def _scikit_learn() -> ModuleType:
    try:
        from sklearn import datasets  # takes seconds to import
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this data set ships with scikit-learn, which is not installed. Run: pip install scikit-learn"
        ) from error
    return datasets
