"""Padding: full size, the real rows untouched, the repeats weightless."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.data.padding import batch_length, pad_batch
from functrain.objectives.batch import unpack


@given(st.integers(1, 12), st.integers(0, 12))
def test_padding_repeats_the_own_rows_cyclically_with_weight_zero(length, extra):
    size = length + extra
    x, y = torch.randn(length, 2), torch.arange(length)
    inputs, targets, weight = pad_batch((x, y), size)
    rows = torch.arange(size) % length
    assert torch.equal(inputs, x[rows])
    assert torch.equal(targets, y[rows])
    assert weight.dtype == torch.float32
    assert weight.tolist() == [1.0] * length + [0.0] * extra


@given(st.integers(1, 12), st.integers(0, 12), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_given_weights_stay_and_repeats_weigh_nothing(length, extra, dtype):
    given_weight = torch.rand(length).to(dtype) + 0.5
    padded = pad_batch((torch.zeros(length), torch.zeros(length), given_weight), length + extra)
    weight = unpack(padded).weight
    assert weight.dtype == dtype
    assert torch.equal(weight[:length], given_weight)
    assert not weight[length:].any()


def test_a_nan_weight_of_a_real_row_is_not_repeated():
    weight = pad_batch((torch.zeros(2), torch.zeros(2), torch.tensor([float("nan"), 1.0])), 4)[2]
    assert weight[2:].tolist() == [0, 0]


def test_a_full_batch_gets_the_same_cached_weights_each_time_and_keeps_its_own():
    batch = (torch.zeros(4, 2), torch.zeros(4))
    first, again = pad_batch(batch, 4), pad_batch(batch, 4)
    assert first[2] is again[2]
    assert first[2].tolist() == [1] * 4
    assert first[0] is batch[0]
    weighted = (*batch, torch.full((4,), 2.0))
    assert pad_batch(weighted, 4) is weighted


def test_nested_inputs_are_padded_and_leaves_without_a_batch_dimension_stay():
    batch = {
        "inputs": {"a": torch.ones(2, 3), "scale": torch.tensor(2.0), "names": ["x", "y"]},
        "targets": torch.zeros(2),
    }
    padded = pad_batch(batch, 5)
    assert padded["inputs"]["a"].shape == (5, 3)
    assert padded["inputs"]["scale"] is batch["inputs"]["scale"]
    assert padded["inputs"]["names"] == ["x", "y"]
    assert padded["weight"].tolist() == [1, 1, 0, 0, 0]


def test_cached_weights_can_be_trained_with_after_inference_mode():
    with torch.inference_mode():
        pad_batch((torch.zeros(13), torch.zeros(13)), 13)
    weight = pad_batch((torch.zeros(13), torch.zeros(13)), 13)[2]
    assert not weight.is_inference()


def test_batches_that_cannot_be_padded_are_refused():
    with pytest.raises(ValueError, match="5 examples cannot be padded to 4"):
        pad_batch((torch.zeros(5), torch.zeros(5)), 4)
    with pytest.raises(ValueError, match="from 1 to 4"):
        pad_batch((torch.zeros(0), torch.zeros(0)), 4)
    with pytest.raises(TypeError, match="collate"):
        batch_length(("a", torch.tensor(1.0)))
