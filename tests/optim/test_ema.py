"""Averages against torch.optim.swa_utils and against their closed form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import swa_utils

from functrain import optim
from functrain.foundation import trees

SHAPES = {"w": (3, 2), "b": (4,), "s": (), "none": (0,)}


def random_tree(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in SHAPES.items()}


@given(decay=st.floats(0, 0.9999), seed=st.integers(0, 100))
def test_an_update_equals_torchs(decay, seed):
    average, params = random_tree(seed), random_tree(seed + 1)
    expected = [leaf.clone() for leaf in average.values()]
    swa_utils.get_ema_multi_avg_fn(decay)(expected, list(params.values()), None)
    updated = optim.ema_update(average, params, decay)
    torch.testing.assert_close(list(updated.values()), expected, rtol=1e-14, atol=1e-15)


@given(decay=st.floats(0, 0.9999))
def test_a_tensor_decay_equals_a_number(decay):
    average, params = random_tree(0), random_tree(1)
    by_tensor = optim.ema_update(average, params, torch.tensor(decay, dtype=torch.float64))
    torch.testing.assert_close(by_tensor, optim.ema_update(average, params, decay), rtol=1e-15, atol=0)


@given(decay=st.floats(0, 0.9999), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_an_average_equal_to_the_parameters_stays_equal_to_the_bit(decay, dtype):
    params = random_tree(0, dtype)
    updated = optim.ema_update(trees.tree_map(torch.clone, params), params, decay)
    assert all(map(torch.equal, trees.leaves(updated), trees.leaves(params)))


def test_the_average_of_half_precision_parameters_is_kept_in_float32():
    average, params = {"w": torch.ones(1)}, {"w": torch.full((1,), 2.0, dtype=torch.bfloat16)}
    updated = optim.ema_update(average, params, 0.999)
    assert updated["w"].dtype == torch.float32
    torch.testing.assert_close(updated["w"], torch.tensor([1.001]))


def test_integers_and_bools_are_copied_and_nothing_is_aliased_or_changed():
    average = {"w": torch.ones(2), "n": torch.tensor(3), "mask": torch.tensor([True])}
    params = {"w": torch.zeros(2), "n": torch.tensor(7), "mask": torch.tensor([False])}
    before = trees.tree_map(torch.clone, (average, params))
    updated = optim.ema_update(average, params, 0.5)
    assert updated["n"].item() == 7
    assert updated["mask"].item() is False
    storages = {leaf.data_ptr() for leaf in trees.leaves((average, params))}
    assert not storages & {leaf.data_ptr() for leaf in trees.leaves(updated)}
    assert all(map(torch.equal, trees.leaves(before), trees.leaves((average, params))))


def test_complex_leaves_are_averaged():
    updated = optim.ema_update({"z": torch.tensor([2 + 2j])}, {"z": torch.tensor([0 + 4j])}, 0.5)
    assert updated["z"].tolist() == [1 + 3j]


def test_an_empty_tree_works():
    assert optim.ema_update({}, {}, 0.9) == {}


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        optim.ema_update({}, {}, decay)


def test_trees_of_different_structure_are_refused():
    with pytest.raises(ValueError, match="params must have the tree structure of ema"):
        optim.ema_update({"a": torch.ones(1)}, {"b": torch.ones(1)}, 0.9)


@given(decay=st.floats(0, 0.9999), every=st.integers(1, 4), warmup=st.booleans(), updates=st.integers(0, 13))
def test_a_rule_averages_at_every_nth_update_with_the_decay_of_that_averaging(decay, every, warmup, updates):
    rule = optim.ema(decay, warmup=warmup, every=every)
    state, expected = rule.init(random_tree(0)), random_tree(0)
    for count in range(updates):
        state = rule.update(state, random_tree(count + 1))
        if (count + 1) % every == 0:
            number = (count + 1) // every - 1
            now = min(decay, (1 + number) / (10 + number)) if warmup else decay
            expected = optim.ema_update(expected, random_tree(count + 1), now)
    torch.testing.assert_close(state.params, expected, rtol=1e-13, atol=1e-15)
    assert state.count.item() == updates
    assert state.buffers == ()


def test_a_rule_averages_buffers_when_told_and_copies_their_integers():
    buffers = {"mean": torch.zeros(2), "batches": torch.tensor(0)}
    rule = optim.ema(0.5, average_buffers=True)
    state = rule.init({"w": torch.zeros(1)}, buffers)
    state = rule.update(state, {"w": torch.ones(1)}, {"mean": torch.ones(2), "batches": torch.tensor(7)})
    assert state.buffers["mean"].tolist() == [0.5, 0.5]
    assert state.buffers["batches"].item() == 7


def test_a_rules_first_state_shares_no_memory():
    params, buffers = {"w": torch.zeros(1)}, {"mean": torch.zeros(2)}
    state = optim.ema(average_buffers=True).init(params, buffers)
    pointers = [leaf.data_ptr() for leaf in trees.leaves((params, buffers, state))]
    assert len(set(pointers)) == len(pointers)
