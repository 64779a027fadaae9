"""Splits are disjoint, complete, of the wanted size, stratified or by group."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.data.splits import split
from functrain.foundation.errors import DataError

fractions = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(lambda w: tuple(x / sum(w) for x in w))
seeds = st.integers(-5, 10**9)


def assert_partition(parts, length):
    assert sorted(torch.cat(parts).tolist()) == list(range(length))
    for part in parts:
        assert part.dtype == torch.int64
        assert len(part)
        assert part.tolist() == sorted(part.tolist())


@given(st.integers(60, 300), fractions, seeds)
def test_a_plain_split_is_a_partition_with_sizes_within_one(length, shares, seed):
    parts = split(length, shares, seed=seed)
    assert_partition(parts, length)
    assert all(abs(len(part) - share * length) < 1 + 1e-9 for part, share in zip(parts, shares))


@given(st.lists(st.integers(0, 4), min_size=150, max_size=300), fractions, seeds)
def test_a_stratified_split_holds_each_labels_share_within_one(labels, shares, seed):
    try:
        parts = split(labels, shares, seed=seed)
    except DataError:  # a part may come out empty only if every label's share of it is below one
        assert all(min(shares) * labels.count(label) < 1 for label in set(labels))
        return
    assert_partition(parts, len(labels))
    for part, share in zip(parts, shares):
        for label in set(labels):
            count = sum(labels[i] == label for i in part.tolist())
            assert abs(count - share * labels.count(label)) < 1 + 1e-9


@given(st.lists(st.integers(0, 60), min_size=100, max_size=200), st.integers(20, 80), seeds)
def test_the_rounding_of_many_small_labels_does_not_add_up(labels, percent, seed):
    first, second = split(labels, (percent / 100, 1 - percent / 100), seed=seed)
    assert abs(len(first) - len(labels) * percent / 100) <= 0.5 + 1e-9
    assert len(first) + len(second) == len(labels)


@given(st.lists(st.integers(0, 30), min_size=40, max_size=150), seeds)
def test_no_group_is_divided(groups, seed):
    if len(set(groups)) < 12:
        groups = groups + list(range(100, 112))
    parts = split(len(groups), (0.5, 0.3, 0.2), seed=seed, groups=groups)
    assert_partition(parts, len(groups))
    found = [{groups[i] for i in part.tolist()} for part in parts]
    assert len(set().union(*found)) == sum(map(len, found))
    largest = max(groups.count(g) for g in groups)
    assert all(abs(len(p) - f * len(groups)) <= largest for p, f in zip(parts, (0.5, 0.3, 0.2)))


def test_the_split_repeats_by_seed_and_differs_between_seeds():
    first, again, other = (split(100, (0.5, 0.5), seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("convert", [list, tuple, np.array, torch.tensor])
def test_labels_of_any_container_give_the_same_split(convert):
    labels = [0, 1, 2] * 20
    parts = split(convert(labels), (0.75, 0.25), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(parts, split(labels, (0.75, 0.25), seed=0)))
    assert [len(p) for p in parts] == [45, 15]


def test_labels_may_be_strings_and_stratification_can_be_refused():
    assert [len(p) for p in split(["a", "b"] * 10, (0.5, 0.5), seed=0)] == [10, 10]
    plain = split(["a", "b"] * 10, (0.5, 0.5), seed=0, stratify=False)
    assert all(torch.equal(a, b) for a, b in zip(plain, split(20, (0.5, 0.5), seed=0)))


@pytest.mark.parametrize("bad", [(0.5, 0.4), (), (1.5, -0.5), (1.0, 0.0)])
def test_fractions_that_do_not_make_a_whole_are_refused(bad):
    with pytest.raises(ValueError, match="sum 1"):
        split(10, bad, seed=0)


def test_contradictions_and_empty_parts_are_refused_with_advice():
    with pytest.raises(ValueError, match="all numbers or all names"):
        split(3, (0.5, 0.5), seed=0, groups=["a", None, "b"])
    with pytest.raises(ValueError, match="label of each example"):
        split(10, (0.5, 0.5), seed=0, stratify=True)
    with pytest.raises(ValueError, match="one entry for each of the 10"):
        split(10, (0.5, 0.5), seed=0, groups=[1, 2])
    with pytest.raises(ValueError, match=r"shape \[N\]"):
        split(np.zeros((4, 2)), (0.5, 0.5), seed=0)
    with pytest.raises(DataError, match="empty"):
        split(3, (0.9, 0.05, 0.05), seed=0)
    with pytest.raises(DataError, match="more groups"):
        split(4, (0.5, 0.5), seed=0, groups=["a"] * 4)
