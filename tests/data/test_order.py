"""The order of the examples is a function of (key, epoch, position)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.data.order import VIEWS_AT_ONCE, batch_count, batch_indices, batches_from, epoch_order

keys = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 1000)


@given(keys, epochs, st.integers(0, 200))
def test_every_epoch_visits_every_example_once(key, epoch, length):
    order = epoch_order(key, epoch, length, shuffle=True)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(length))


@given(keys, epochs)
def test_the_order_repeats_and_epochs_and_keys_differ(key, epoch):
    order = epoch_order(key, epoch, 40, shuffle=True)  # 40! orders: a collision would be a defect
    assert torch.equal(order, epoch_order(key, epoch, 40, shuffle=True))
    assert not torch.equal(order, epoch_order(key, epoch + 1, 40, shuffle=True))
    assert not torch.equal(order, epoch_order(key ^ 1, epoch, 40, shuffle=True))


@given(keys, epochs, st.integers(0, 50))
def test_without_shuffling_the_order_is_the_data_sets(key, epoch, length):
    assert epoch_order(key, epoch, length, shuffle=False).tolist() == list(range(length))


def test_computing_an_order_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    epoch_order(1, 0, 100, shuffle=True)
    assert torch.equal(before, torch.get_rng_state())


@given(st.integers(1, 20), st.integers(1, 70), st.booleans())
def test_oversampling_draws_whole_permutations_or_with_replacement(length, count, replacement):
    order = epoch_order(3, 1, length, True, num_samples=count, replacement=replacement)
    assert len(order) == count
    assert set(order.tolist()) <= set(range(length))
    if not replacement:
        for first in range(0, count - length + 1, length):
            assert sorted(order[first : first + length].tolist()) == list(range(length))
        assert torch.equal(order[:length], epoch_order(3, 1, length, shuffle=True)[:count])


@given(st.integers(0, 100), st.integers(1, 17), st.booleans())
def test_batches_partition_the_order(length, batch_size, drop_last):
    order = epoch_order(5, 0, length, shuffle=True)
    count = batch_count(length, batch_size, drop_last)
    batches = [batch_indices(order, batch_size, p, drop_last) for p in range(count)]
    joined = [index for batch in batches for index in batch.tolist()]
    assert joined == order.tolist()[: len(joined)]
    assert len(joined) == (length - length % batch_size if drop_last else length)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    for position in (-1, count):
        with pytest.raises(IndexError, match="position"):
            batch_indices(order, batch_size, position, drop_last)


@given(st.integers(0, 60), st.integers(1, 9), st.booleans(), st.data())
def test_iterating_from_a_position_gives_the_same_batches(length, batch_size, drop_last, data):
    order = torch.arange(length)
    count = batch_count(length, batch_size, drop_last)
    start = data.draw(st.integers(0, count))
    expected = [batch_indices(order, batch_size, p, drop_last).tolist() for p in range(start, count)]
    assert [rows.tolist() for rows in batches_from(order[: count * batch_size], batch_size, start)] == expected


def test_iterating_is_the_same_over_the_seams_of_view_blocks():
    order = torch.arange(2 * VIEWS_AT_ONCE * 3 + 2)
    for start in (0, 7, VIEWS_AT_ONCE, 2 * VIEWS_AT_ONCE):
        rows = list(batches_from(order, 3, start))
        assert torch.equal(torch.cat(rows), order[3 * start :])
        assert {len(r) for r in rows[:-1]} <= {3}
