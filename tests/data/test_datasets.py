"""In-memory sources, and scikit-learn's digits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from functrain.data.datasets import Arrays, digits
from functrain.foundation.errors import DataError


def test_arrays_give_the_samples_and_batches_of_a_tensor_dataset():
    x, y = torch.randn(10, 3), torch.arange(10)
    for ours, theirs in zip(DataLoader(Arrays(x, y), 4), DataLoader(TensorDataset(x, y), 4)):
        assert type(ours) is type(theirs)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
    assert all(torch.equal(a, b) for a, b in zip(Arrays(x, y).take([7, 2]), (x[[7, 2]], y[[7, 2]])))


def test_arrays_share_the_memory_of_numpy_arrays_and_copy_read_only_ones():
    array = np.zeros((4, 2), np.float32)
    data = Arrays(array)
    array[1] = 5
    assert data[1][0].tolist() == [5, 5]
    array.flags.writeable = False
    assert Arrays(array)[1][0].tolist() == [5, 5]


def test_the_transform_takes_and_returns_a_sample():
    data = Arrays(torch.arange(4.0), torch.arange(4), transform=lambda x, y: (x * 10, y))
    assert data[2] == (torch.tensor(20.0), torch.tensor(2))
    assert data.take([2])[0].tolist() == [2.0]


def test_unfit_arrays_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        Arrays()
    with pytest.raises(ValueError, match=r"\[3\], \[4\]"):
        Arrays(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="same first dimension"):
        Arrays(torch.tensor(3.0))
    with pytest.raises(DataError, match="empty"):
        Arrays(torch.zeros(0, 4))
    with pytest.raises(TypeError, match="list"):
        Arrays([1, 2, 3])


def test_digits_are_scikit_learns_divided_into_three_stratified_parts():
    parts = [digits(name) for name in ("train", "val", "test")]
    for part in parts:
        images, classes = part.tensors
        assert images.dtype == torch.float32
        assert images.shape[1:] == (1, 8, 8)
        assert images.min() == 0
        assert images.max() == 1
        assert classes.dtype == torch.int64
    together = torch.cat([p.tensors[0].flatten(1) for p in parts])
    original = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    assert sorted(together.tolist()) == sorted(original.tolist())
    counts = torch.stack([p.tensors[1].bincount() for p in parts])
    shares = torch.tensor([0.6, 0.2, 0.2])[:, None] * counts.sum(0)
    assert ((counts - shares).abs() < 1).all()
    assert torch.equal(digits("val").tensors[0], parts[1].tensors[0])
    assert not torch.equal(digits("val", seed=1).tensors[0], parts[1].tensors[0])


def test_digits_have_three_parts():
    with pytest.raises(ValueError, match="'train', 'val', 'test'"):
        digits("valid")
