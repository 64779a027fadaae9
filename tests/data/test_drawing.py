"""Samples and collate_fns that draw now and then: what a reader has seen to draw changes no bit."""

import random

import numpy as np
import pytest
import torch
from data_helpers import Mapped, same_bits
from hypothesis import given
from hypothesis import strategies as some
from torch.utils.data import DataLoader, default_collate

from functrain.data import as_stream
from functrain.data.randomness import KINDS, Randomness
from functrain.foundation.generators import preserved_generators

DRAWS = {
    "torch": lambda: float(torch.rand(())),
    "python": random.random,
    "python gauss": lambda: random.gauss(0, 1),
    "numpy": lambda: float(np.random.rand()),
    "numpy randn": lambda: float(np.random.randn()),
    "nothing": lambda: 0.0,
}
SAMPLES = 6


class Batches(Mapped):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


def loader(draws, kind, collate):
    """Sample i draws by each of `draws[i]`; with `collate`, so does a batch that has a sample which draws twice."""

    def sample(index):
        return torch.tensor([index, *(DRAWS[name]() for name in draws[index])], dtype=torch.float64)

    def collated(samples):
        assert all(len(row) == len(draws[int(row[0])]) + 1 for row in samples)
        extra = random.random() if any(len(row) > 2 for row in samples) else 0.0
        result = [torch.cat(samples), extra]
        samples.clear()  # a collate_fn may use up what it is given
        return result

    plain = None if collate else lambda samples: [torch.cat(samples)]
    return DataLoader(kind(sample), 2, collate_fn=collated if collate else plain)


def batches(draws, kind, collate, *, start=0, known=False):
    stream = as_stream(loader(draws, kind, collate), 7)
    if known:
        stream._drawing = dict.fromkeys(("samples", "collate"), frozenset(KINDS))
    return list(stream.batches(0, start)) + list(stream.batches(1))


MIXED = some.lists(some.lists(some.sampled_from(sorted(DRAWS)), max_size=2), min_size=SAMPLES, max_size=SAMPLES)


@given(MIXED, some.sampled_from([Mapped, Batches]), some.booleans(), some.integers(0, 3))
def test_what_was_seen_to_draw_changes_no_bit(draws, kind, collate, start):
    with preserved_generators():
        before = torch.rand(()), random.getstate(), np.random.get_state()[1].tolist()
        always_seeded = batches(draws, kind, collate, known=True)
        assert same_bits(batches(draws, kind, collate), always_seeded)
        assert same_bits(batches(draws, kind, collate, start=start), always_seeded[start:])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_samples_that_draw_are_read_once_but_the_first():
    read = []
    data = Mapped(lambda index: read.append(index) or torch.rand(()))
    for _ in as_stream(DataLoader(data, 3), 0).batches(0):
        pass
    assert read == [0, 0, 1, 2, 3, 4, 5]


def test_samples_that_draw_nothing_are_read_once():
    read = []
    data = Mapped(lambda index: read.append(index) or torch.zeros(()))
    for _ in as_stream(DataLoader(data, 3), 0).batches(0):
        pass
    assert read == [0, 1, 2, 3, 4, 5]


def test_an_error_of_a_sample_that_drew_is_one_with_its_own_seed():
    """A sample that fails by chance fails with its own seed or not at all."""
    fails = [Mapped(lambda index, bound=bound: 1 / (random.random() > bound)) for bound in (0.0, 1.0)]
    list(as_stream(DataLoader(fails[0], 3), 0).batches(0))
    with pytest.raises(ZeroDivisionError):
        list(as_stream(DataLoader(fails[1], 3), 0).batches(0))


def test_an_error_without_draws_is_raised_at_the_first_reading():
    read = []

    def sample(index):
        read.append(index)
        raise OSError("no such image")

    with pytest.raises(OSError, match="no such image") as caught:
        list(as_stream(DataLoader(Mapped(sample), 3, collate_fn=default_collate), 0).batches(0))
    assert read == [0]
    assert "while reading sample 0" in caught.value.__notes__[0]


@pytest.mark.parametrize("kind", [list, tuple])
def test_stored_batches_are_given_without_seeding_a_generator(kind, monkeypatch):
    stored = kind((torch.full((2, 1), float(number)), torch.zeros(2)) for number in range(3))
    reading = as_stream(stored, 7).batches(0)
    monkeypatch.setattr(Randomness, "seed", lambda *_: pytest.fail("a generator was seeded"))
    assert list(map(id, reading)) == list(map(id, stored))
