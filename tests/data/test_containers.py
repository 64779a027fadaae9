"""Batches come with the bits, strides and containers that torch's own loader gives."""

import collections

import numpy as np
import pytest
import torch
from data_helpers import Mapped, same_bits, tensors
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

from functrain.data import as_stream


def test_an_order_without_a_sampler_equals_torchs_own_batches_bit_for_bit():
    for dataset in (tensors(), Subset(tensors(), [7, 3, 1, 0]), Subset(Subset(tensors(), range(9)), (2, 8))):
        loader = DataLoader(dataset, 3)
        assert same_bits(list(as_stream(loader, 0).batches(0)), list(loader))


Point = collections.namedtuple("Point", ["x", "y"])


@pytest.mark.parametrize(
    "sample",
    [
        lambda i: {"inputs": torch.tensor([i]), "targets": i},
        lambda i: Point(np.array([i]), float(i)),
        lambda i: (torch.tensor([i]), {"a": [i, "text"]}),
        lambda i: [i, (i, i)],
        lambda i: torch.tensor(i),
    ],
    ids=["dict", "namedtuple", "nested", "list", "tensor"],
)
def test_every_container_comes_as_torchs_loader_gives_it(sample):
    loader = DataLoader(Mapped(sample), 4)
    assert same_bits(list(as_stream(loader, 0).batches(0)), list(loader))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(6, 4).T,
        torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.randn(4, 2, requires_grad=True),
        torch.arange(4).expand(3, 4).T,
        torch.randn(4, 2, dtype=torch.complex64),
        torch.tensor([True, False, True, True]),
    ],
    ids=["transposed", "channels_last", "requires_grad", "expanded", "complex", "bool"],
)
def test_unusual_tensors_come_with_the_bits_strides_and_gradients_of_torchs_loader(tensor):
    loader = DataLoader(TensorDataset(tensor), 3)
    for ours, theirs in zip(as_stream(loader, 0).batches(0), loader):
        assert same_bits(ours, theirs)
        assert ours[0].requires_grad == theirs[0].requires_grad


@given(st.permutations(range(4)), st.booleans())
def test_any_order_of_dimensions_in_memory_comes_as_torchs_loader_gives_it(dimensions, sliced):
    tensor = torch.randn(4, 5, 6, 7).permute(dimensions)
    tensor = tensor[:, ::2] if sliced else tensor
    loader = DataLoader(TensorDataset(tensor), 3)
    assert same_bits(list(as_stream(loader, 0).batches(0)), list(loader))


def test_a_subclass_of_a_tensor_dataset_is_read_sample_by_sample():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return tuple(2 * t for t in super().__getitem__(index))

    [[rows]] = as_stream(DataLoader(Doubled(torch.arange(3)), 3), 0).batches(0)
    assert rows.tolist() == [0, 2, 4]


def test_default_collate_may_be_named():
    loader = DataLoader(tensors(), 4, collate_fn=default_collate)
    assert same_bits(list(as_stream(loader, 0).batches(0)), list(loader))
