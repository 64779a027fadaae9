"""Splits and folds by group and label: no group is divided, the balance is close to the best, nothing global counts."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from functrain.data import k_fold, split
from functrain.foundation.errors import DataError

seeds = st.integers(0, 10**6)


def grouped(seed, groups, largest=12, classes=3):
    """Groups of unequal sizes, each with labels of its own frequencies."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest + 1, groups)
    labels = [rng.choice(classes, size, p=rng.dirichlet(np.ones(classes))) for size in sizes]
    order = rng.permutation(sizes.sum())
    return np.concatenate(labels)[order], np.repeat(np.arange(groups), sizes)[order]


def imbalance(labels, parts, shares):
    """Chi-square over parts and labels, and sizes: what a split by group and label makes small."""
    totals = np.bincount(labels)
    total = 0.0
    for part, share in zip(parts, shares):
        found = np.bincount(labels[part], minlength=len(totals))
        total += (((found - share * totals) ** 2)[totals > 0] / (share * totals[totals > 0])).sum()
        total += (len(part) - share * len(labels)) ** 2 / (share * len(labels))
    return total


def assert_whole_groups(groups, parts):
    found = [set(groups[part.numpy()].tolist()) for part in parts]
    assert sum(map(len, found)) == len(set().union(*found)) == len(set(groups.tolist()))


@given(seeds, st.integers(4, 40), st.sampled_from([(0.5, 0.5), (0.7, 0.2, 0.1), (0.25,) * 4]))
@settings(max_examples=40)
def test_a_split_by_group_and_label_divides_no_group_and_leaves_no_part_empty(seed, groups, shares):
    labels, groups = grouped(seed, groups)
    parts = split(labels, shares, seed=seed, stratify=True, groups=groups)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    assert all(map(len, parts))
    assert_whole_groups(groups, parts)


@given(seeds, st.integers(3, 12), st.sampled_from([(0.6, 0.4), (0.5, 0.3, 0.2)]))
@settings(max_examples=20, deadline=None)
def test_no_move_and_no_exchange_of_groups_improves_the_balance(seed, count, shares):
    labels, groups = grouped(seed, count)
    members = [np.flatnonzero(groups == group) for group in range(count)]
    parts = split(labels, shares, seed=seed, stratify=True, groups=groups)
    of_group = [next(p for p, part in enumerate(parts) if rows[0] in part) for rows in members]

    def balance(of_group):
        found = [np.concatenate([members[g] for g in range(count) if of_group[g] == p]) for p in range(len(shares))]
        return imbalance(labels, found, shares)

    moved = [[*of_group[:g], part, *of_group[g + 1 :]] for g in range(count) for part in range(len(shares))]
    exchanged = []
    for one, other in itertools.combinations(range(count), 2):
        exchanged.append(list(of_group))
        exchanged[-1][one], exchanged[-1][other] = of_group[other], of_group[one]
    others = [each for each in [*moved, *exchanged] if len(set(each)) == len(shares)]  # no part is left empty
    # Changes are compared to nine digits after the point, so a smaller one counts as none.
    assert balance(of_group) <= min(map(balance, others)) + 1e-9


def test_folds_of_groups_are_better_balanced_than_scikit_learns():
    ours, theirs = [], []
    for seed in range(10):
        labels, groups = grouped(seed, 40)
        folds = k_fold(labels, 5, seed=seed, stratify=True, groups=groups)
        ours.append(imbalance(labels, [fold.val for fold in folds], [0.2] * 5))
        other = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
        theirs.append(imbalance(labels, [val for _, val in other], [0.2] * 5))
    assert np.mean(ours) < 0.5 * np.mean(theirs)


@given(st.integers(2, 6), st.integers(6, 60), seeds)
def test_each_example_validates_once_and_folds_have_equal_sizes(folds, length, seed):
    found = k_fold(length, folds, seed=seed)
    assert sorted(torch.cat([fold.val for fold in found]).tolist()) == list(range(length))
    for train, val in found:
        assert sorted([*train.tolist(), *val.tolist()]) == list(range(length))
        assert train.dtype == val.dtype == torch.int64
    sizes = [len(fold.val) for fold in found]
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(0, 3), min_size=40, max_size=80), seeds)
def test_folds_hold_each_labels_share_within_one(labels, seed):
    for fold in k_fold(labels, 4, seed=seed):
        for label in set(labels):
            count = sum(labels[index] == label for index in fold.val.tolist())
            assert abs(count - labels.count(label) / 4) < 1 + 1e-9


@given(seeds, st.integers(5, 30), st.booleans())
@settings(max_examples=30)
def test_no_group_is_in_two_folds(seed, groups, stratify):
    labels, groups = grouped(seed, groups)
    folds = k_fold(labels, 5, seed=seed, stratify=stratify, groups=groups)
    assert_whole_groups(groups, [fold.val for fold in folds])
    for train, val in folds:
        assert not set(groups[train.numpy()].tolist()) & set(groups[val.numpy()].tolist())


def test_folds_are_a_function_of_data_and_seed_and_of_nothing_global():
    labels, groups = grouped(0, 20)
    first = k_fold(labels, 4, seed=1, stratify=True, groups=groups)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    np.random.rand(3)
    torch.rand(3)
    again = k_fold(labels.tolist(), 4, seed=1, stratify=True, groups=[f"{group:03d}" for group in groups])
    assert all(torch.equal(a.val, b.val) for a, b in zip(first, again))
    other = k_fold(labels, 4, seed=2, stratify=True, groups=groups)
    assert not all(torch.equal(a.val, b.val) for a, b in zip(first, other))
    torch.set_rng_state(state)
    np.random.seed(0)
    k_fold(labels, 4, seed=1, stratify=True, groups=groups)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(numpy_state)


def test_a_small_share_gets_a_group_where_there_are_groups_enough():
    for stratify in (False, True):
        parts = split([0, 1] * 15, (0.8, 0.1, 0.1), seed=0, stratify=stratify, groups=np.repeat(range(3), 10))
        assert [len(part) for part in parts] == [10, 10, 10]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((10, 1), {}, ValueError, "folds must be a whole number >= 2, got 1"),
        ((3, 5), {}, DataError, "5 folds need at least 5 examples, there are 3"),
        ((9, 4), {"groups": [0, 1, 2] * 3}, DataError, "4 folds need at least 4 groups, there are 3"),
        ((np.arange(9), 3), {}, DataError, "no label has as many examples as there are folds .1 at most, 3 folds."),
        ((9, 3), {"stratify": True}, ValueError, "stratify=True needs the label of each example"),
        ((9, 3), {"groups": [0, 1]}, DataError, "3 folds need at least 3 groups"),
        ((9, 2), {"groups": [0, 1]}, ValueError, "groups needs one entry for each of the 9 examples"),
    ],
)
def test_what_cannot_be_is_refused(arguments, options, error, words):
    with pytest.raises(error, match=words):
        k_fold(*arguments, seed=0, **options)
