"""Loaders that can only be iterated: bare iterables and stateful loaders."""

import copy
import itertools
import random
import warnings

import numpy as np
import pytest
import torch
from data_helpers import global_states, same_bits
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from functrain.data import DataWarning, as_stream
from functrain.foundation.errors import DataError

COUNT = 7


class Noisy:
    """A re-iterable of batches that draws from the global generators."""

    def __init__(self, count=COUNT):
        self.count = count
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        offset = torch.randn(1)
        for i in range(self.count):
            yield torch.tensor([float(i), random.random(), np.random.rand()]) + offset + torch.rand(1), i


class Samples(IterableDataset):
    def __iter__(self):
        for i in range(20):
            yield torch.randn(2) + i, i


class SizedSamples(Samples):
    def __len__(self):
        return 20


ITERABLES = {
    "bare": lambda: Noisy(),
    "iterable data set": lambda: DataLoader(Samples(), 3),
    "iterable data set, worker": lambda: DataLoader(Samples(), 3, num_workers=1),
    "list": lambda: [(torch.tensor([i]), i) for i in range(COUNT)],
}


@pytest.mark.parametrize("make", ITERABLES.values(), ids=ITERABLES.keys())
def test_resuming_fast_forwards_to_the_same_batches_with_a_warning_of_the_cost(make):
    stream = as_stream(make(), 5)
    assert stream.kind == "iterable"
    before = global_states()
    whole = list(stream.batches(1))
    assert len(whole) == COUNT
    assert global_states() == before
    torch.rand(1)
    with pytest.warns(DataWarning, match="4 batches are now read and thrown away"):
        rest = list(as_stream(make(), 5).batches(1, 4))
    assert same_bits(rest, whole[4:])
    assert stream.state_dict() == {}


def test_epochs_of_a_drawing_iterable_differ_and_it_is_told_the_epoch():
    loader = Noisy()
    stream = as_stream(loader, 5)
    assert not same_bits(list(stream.batches(0)), list(stream.batches(1)))
    assert loader.epochs == [0, 1]


def test_no_warning_without_a_resume():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(as_stream(Noisy(), 0).batches(0))


def test_a_generator_serves_one_pass():
    stream = as_stream(((torch.zeros(2), i) for i in range(3)), 0, what="train")
    assert len(list(stream.batches(0))) == 3
    with pytest.raises(DataError, match=r"train loader is an iterator \(generator\).*once"):
        stream.batches(1)


def test_lengths_are_told_where_they_are_exact():
    assert as_stream(Noisy(), 0).length(0) is None
    assert as_stream([1, 2], 0).length(0) == 2
    assert as_stream(DataLoader(Samples(), 3), 0).length(0) is None
    assert as_stream(DataLoader(SizedSamples(), 3), 0).length(0) == 7
    assert as_stream(DataLoader(SizedSamples(), 3, num_workers=2), 0).length(0) is None
    assert as_stream(DataLoader(SizedSamples(), 3), 0).batch_size == 3


def test_iterables_that_are_empty_or_ended_early_raise():
    with pytest.raises(DataError, match="no batch"):
        list(as_stream([], 0).batches(0))
    with pytest.warns(DataWarning), pytest.raises(DataError, match="has 7 micro-batches, but 9"):
        list(as_stream(Noisy(), 0).batches(0, 9))
    with pytest.raises(ValueError, match="negative"):
        as_stream(Noisy(), 0).batches(0, -1)
    with pytest.warns(DataWarning):
        assert list(as_stream(Noisy(), 0).batches(0, COUNT)) == []


def test_a_data_loader_with_an_iter_of_its_own_keeps_it():
    class Doubling(DataLoader):
        def __iter__(self):
            for [rows] in super().__iter__():
                yield [rows * 2]

    stream = as_stream(Doubling(TensorDataset(torch.arange(4)), 2), 0)
    assert stream.kind == "iterable"
    assert [rows.tolist() for [rows] in stream.batches(0)] == [[0, 2], [4, 6]]


class Stateful:
    """As torchdata's StatefulDataLoader: a shuffling loader whose state is its position and generator."""

    batch_size = 2

    def __init__(self, seed=0, length=10, noise=False):
        self.generator = np.random.PCG64(seed)
        self.length, self.noise = length, noise
        self.pending, self.position, self.order, self.reads = None, 0, [], 0

    def __len__(self):
        return self.length // 2

    def __iter__(self):
        if self.pending is not None:
            self.order, self.position = self.pending
            self.pending = None
        else:
            self.order = np.random.Generator(self.generator).permutation(self.length).tolist()
            self.position = 0
        while self.position < len(self):
            self.position += 1
            self.reads += 1
            noise = np.random.Generator(self.generator).random() if self.noise else 0.0
            yield torch.tensor(self.order[2 * self.position - 2 : 2 * self.position]) + torch.rand(1) + noise
        self.order = None

    def state_dict(self):
        return copy.deepcopy({"order": self.order, "position": self.position, "generator": self.generator.state})

    def load_state_dict(self, state):
        self.generator.state = state["generator"]
        # like torchdata: a state that was taken after the end starts a new pass
        self.pending = None if state["order"] is None else (state["order"], state["position"])


def passes(stream, where, count):
    """The next `count` batches from `where`, over epochs as the training loop goes, and where that ends."""
    epoch, position = where
    got = []
    while True:
        for batch in stream.batches(epoch, position):
            got.append(batch)
            position += 1
            if len(got) == count:
                return got, (epoch, position)
        epoch, position = epoch + 1, 0


@pytest.mark.parametrize("taken", range(1, 13))
def test_a_stateful_loader_goes_on_where_it_was_without_reading_again(taken):
    whole, _ = passes(as_stream(Stateful(), 1), (0, 0), 18)
    stream = as_stream(Stateful(), 1)
    assert (stream.kind, stream.batch_size, stream.length(0)) == ("stateful", 2, 5)
    first, where = passes(stream, (0, 0), taken)
    assert same_bits(first, whole[:taken])
    state = stream.state_dict()
    loader = Stateful(seed=77)
    resumed = as_stream(loader, 1)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    rest, _ = passes(resumed, where, 18 - taken)
    assert same_bits(rest, whole[taken:])
    assert loader.reads == 18 - taken


def test_a_state_saved_at_the_last_batch_may_be_resumed_in_the_next_epoch():
    whole, _ = passes(as_stream(Stateful(), 1), (0, 0), 12)
    for exhaust in (False, True):
        stream = as_stream(Stateful(), 1)
        batches = stream.batches(0)
        for _ in range(5):
            next(batches)
        if exhaust:
            assert next(batches, None) is None
        resumed = as_stream(Stateful(seed=77), 1)
        resumed.load_state_dict(stream.state_dict())
        assert same_bits(passes(resumed, (1, 0), 7)[0], whole[5:])


def test_a_state_that_was_saved_after_the_end_also_resumes_at_the_end():
    whole, _ = passes(as_stream(Stateful(), 1), (0, 0), 12)
    stream = as_stream(Stateful(), 1)
    assert len(list(stream.batches(0))) == 5
    state = stream.state_dict()
    assert state["ended"]
    resumed = as_stream(Stateful(seed=77), 1)
    resumed.load_state_dict(state)
    assert list(resumed.batches(0, 5)) == []
    assert resumed.state_dict() == state
    assert same_bits(passes(resumed, (1, 0), 7)[0], whole[5:])


def epochs(stream, where, count, *, per_epoch, length=5):
    """The next `count` batches as the loop asks for them when an epoch is cut short, or extended by a second pass.

    Returns:
        The batches; the state and the place after each of them.
    """
    (epoch, position), got, after = where, [], []
    while len(got) < count:
        if position == per_epoch:
            epoch, position = epoch + 1, 0
        source = stream.batches(epoch, position % length)
        for batch in itertools.islice(source, per_epoch - position):
            position += 1
            got.append(batch)
            after.append((copy.deepcopy(stream.state_dict()), (epoch, position)))
    return got[:count], after


@pytest.mark.parametrize("per_epoch", [3, 4, 5, 6, 8, 10, 12])
def test_epochs_that_end_before_a_pass_does_or_go_on_into_a_further_one_resume_anywhere(per_epoch):
    whole, after = epochs(as_stream(Stateful(noise=True), 1), (0, 0), 30, per_epoch=per_epoch)
    for taken, (state, where) in enumerate(after[:26], 1):
        resumed = as_stream(Stateful(seed=77, noise=True), 1)
        resumed.load_state_dict(state)
        assert same_bits(epochs(resumed, where, 30 - taken, per_epoch=per_epoch)[0], whole[taken:]), (taken, where)


def test_without_a_restored_state_a_stateful_loader_is_fast_forwarded():
    whole = list(as_stream(Stateful(), 1).batches(0))
    stream = as_stream(Stateful(), 1)
    with pytest.warns(DataWarning, match="3 batches are now read"):
        rest = stream.batches(0, 3)
    assert stream.state_dict()["position"] == 3
    assert same_bits(list(rest), whole[3:])


def test_a_state_of_another_position_or_of_another_kind_is_refused():
    stream = as_stream(Stateful(), 1)
    next(stream.batches(2))
    resumed = as_stream(Stateful(), 1)
    resumed.load_state_dict(stream.state_dict())
    with pytest.raises(
        DataError, match=r"train loader stands after micro-batch 1 of epoch 3, but .* after micro-batch 4 of epoch 3"
    ):
        resumed.batches(2, 4)
    with pytest.raises(DataError, match="another kind of loader"):
        resumed.load_state_dict({})
