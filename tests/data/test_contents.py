"""content_digest: equal for equal contents, different for others; looking leaves no trace."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from functrain.data import Arrays, Loader, as_stream, contents
from functrain.data.contents import content_digest


def arrays(count=20):
    return Arrays(torch.arange(count * 3.0).reshape(count, 3), torch.arange(count))


class Computed(Dataset):
    """Samples that are made when they are read, partly at random, from generators of all kinds."""

    def __init__(self, count=100, scale=1.0):
        self.count, self.scale, self.read = count, scale, []
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        noise = torch.rand(2) * self.scale
        return {"x": noise + index, "n": np.float32(self.rng.random()), "t": f"sample {index}", "p": random.random()}


@given(st.integers(0, 19), st.integers(0, 2))
def test_any_changed_element_of_tensors_in_memory_is_found(row, column):
    changed = arrays()
    changed.tensors[0][row, column] += 1
    assert content_digest(changed) != content_digest(arrays())


def test_equal_contents_have_one_digest_whatever_holds_them():
    digest = content_digest(arrays())
    assert digest == content_digest(arrays()) == content_digest(TensorDataset(*arrays().tensors))
    assert digest == content_digest(Subset(arrays(), range(20)))
    assert len(digest) == 16


@pytest.mark.parametrize(
    "other",
    [
        arrays(19),
        Arrays(*arrays().tensors[::-1]),
        Subset(arrays(), [1, 0, *range(2, 20)]),
        Arrays(arrays().tensors[0].double(), arrays().tensors[1]),
        Arrays(arrays().tensors[0].reshape(20, 3, 1), arrays().tensors[1]),
        Arrays(*arrays().tensors, transform=lambda x, y: (x + 1, y)),
    ],
)
def test_length_order_dtype_shape_and_transform_count(other):
    assert content_digest(other) != content_digest(arrays())


def test_of_tensors_beyond_the_limit_first_last_and_some_rows_are_looked_at(monkeypatch):
    monkeypatch.setattr(contents, "WHOLE_NBYTES", 100)
    data = Arrays(torch.zeros(1000, 3))
    found = content_digest(data)
    seen = 0
    for row in range(1000):
        data.tensors[0][row] = 1
        seen += content_digest(data) != found
        data.tensors[0][row] = 0
    assert 40 < seen <= contents.ROWS
    for row in (0, -1):
        data.tensors[0][row] = 1
        assert content_digest(data) != found
        data.tensors[0][row] = 0


def test_of_computed_samples_a_few_are_read_and_no_generator_is_moved():
    data = Computed()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), data.rng.bit_generator.state
    found = content_digest(data)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), data.rng.bit_generator.state
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert len(data.read) == contents.SAMPLES
    assert {0, 99} <= set(data.read)
    torch.rand(3)
    assert found == content_digest(Computed())
    assert found != content_digest(Computed(scale=2.0))


def test_where_workers_read_the_training_process_does_not():
    for workers, kept in ((2, None), (0, content_digest(Computed()))):
        for loader in (Loader(Computed(), 4, num_workers=workers), DataLoader(Computed(), 4, num_workers=workers)):
            stream = as_stream(loader, 0)
            assert stream.content_digest() == kept
            stream.close()
    assert as_stream(Loader(arrays(), 4, num_workers=2), 0).content_digest() == content_digest(arrays())


def test_a_data_set_that_cannot_be_read_has_none():
    class Broken(Computed):
        def __getitem__(self, index):
            raise OSError("gone")

    assert content_digest(Broken()) is None
    assert content_digest(iter(())) is None
