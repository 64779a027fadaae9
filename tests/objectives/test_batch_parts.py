"""Batches: their forms, and what is refused."""

from collections import namedtuple

import pytest
import torch

from functrain.objectives.batch import batch_length, unpack, with_weight

X, Y, W = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), torch.ones(4)
Named = namedtuple("Named", ["inputs", "targets"])


@pytest.mark.parametrize("batch", [(X, Y), [X, Y], Named(X, Y), {"inputs": X, "targets": Y}])
def test_every_form_of_a_batch_without_weight_has_the_same_parts(batch):
    parts = unpack(batch)
    assert parts.inputs is X
    assert parts.targets is Y
    assert parts.weight is None


@pytest.mark.parametrize("batch", [(X, Y, W), [X, Y, W], {"inputs": X, "targets": Y, "weight": W, "id": 3}])
def test_every_form_of_a_batch_with_weight_has_the_same_parts(batch):
    assert unpack(batch).weight is W


@pytest.mark.parametrize("batch", [(X, Y), [X, Y], (X, Y, W), {"inputs": X, "targets": Y, "id": 3}])
def test_with_weight_replaces_the_weight_and_keeps_the_rest(batch):
    weight = torch.rand(4)
    weighted = with_weight(batch, weight)
    assert unpack(weighted).weight is weight
    assert unpack(weighted).inputs is X
    assert unpack(weighted).targets is Y
    if isinstance(batch, dict):
        assert weighted["id"] == 3
        assert "weight" not in batch


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (X, r"got a tensor \[4"),
        ((X,), "got a tuple of 1"),
        ([X, Y, W, W], "got a list of 4"),
        ({"image": X, 3: Y}, "needs the keys 'inputs' and 'targets', or 'labels' .*; got a dict of 2 .'image': tensor"),
    ],
)
def test_other_batches_are_refused_with_what_was_given(batch, message):
    with pytest.raises(TypeError, match=message):
        unpack(batch)


def test_the_length_of_a_batch_is_its_first_tensors_leading_dimension():
    assert batch_length({"inputs": (torch.tensor(1.0), X), "targets": torch.zeros(9)}) == 4
    assert batch_length([("text", X), Y]) == 4
    with pytest.raises(TypeError, match="a row for each example, got a tuple of 2"):
        batch_length((torch.tensor(1.0), "text"))
