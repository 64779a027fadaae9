"""The law of the data layer: micro-batch p of epoch e is a function of (key, e, p) only."""

import itertools
from unittest import mock

import numpy as np
import pytest
import torch
from data_helpers import LENGTH, Augmented, Mapped, global_states, noisy_collate, same_bits, tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from functrain.data import Arrays, Loader, Stream, as_stream, batch_indices, epoch_order, gathering
from functrain.data.plans import DRAWN_AT_ONCE, SampledPlan
from functrain.foundation.errors import DataError

keys = st.integers(0, 2**64 - 1)


class BucketBatches:
    """A batch sampler of uneven batches, drawn from NumPy's global generator."""

    def __init__(self, length=LENGTH):
        self.length = length

    def __iter__(self):
        order = np.random.permutation(self.length)
        first = 0
        while first < self.length:
            size = np.random.randint(1, 5)
            yield order[first : first + size]
            first += size


class OwnGenerator:
    """A sampler with a generator of its own that goes on from epoch to epoch."""

    def __init__(self):
        self.rng = np.random.default_rng(5)

    def __iter__(self):
        return iter(self.rng.permutation(LENGTH).tolist())

    def __len__(self):
        return LENGTH


class CountsEpochs:
    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter([(i + self.epoch) % LENGTH for i in range(LENGTH)])

    def __len__(self):
        return LENGTH


LOADERS = {
    "Loader": lambda d: Loader(d, 4),
    "Loader, drop_last": lambda d: Loader(d, 4, drop_last=True),
    "Loader, collate": lambda d: Loader(d, 4, collate_fn=noisy_collate),
    "Loader, weighted": lambda d: Loader(d, 4, sampling_weights=torch.linspace(0.1, 1, LENGTH), num_samples=40),
    "Loader, oversampled": lambda d: Loader(d, 4, num_samples=50),
    "shuffle": lambda d: DataLoader(d, 4, shuffle=True),
    "shuffle, drop_last": lambda d: DataLoader(d, 4, shuffle=True, drop_last=True),
    "sequential": lambda d: DataLoader(d, 4),
    "collate": lambda d: DataLoader(d, 4, shuffle=True, collate_fn=noisy_collate),
    "oversampled": lambda d: DataLoader(d, 4, sampler=RandomSampler(d, num_samples=50)),
    "replacement": lambda d: DataLoader(d, 4, sampler=RandomSampler(d, replacement=True, num_samples=30)),
    "weighted": lambda d: DataLoader(d, 4, sampler=WeightedRandomSampler(torch.linspace(0.1, 1, LENGTH), 40)),
    "subset sampler": lambda d: DataLoader(d, 4, sampler=SubsetRandomSampler(range(3, 20))),
    "seeded sampler": lambda d: DataLoader(d, 4, sampler=SubsetRandomSampler(range(20), generator=torch.Generator())),
    "list sampler": lambda d: DataLoader(d, 4, sampler=[5, 4, 9, 1, -1, 2, 2, 2, 2]),
    "own generator": lambda d: DataLoader(d, 4, sampler=OwnGenerator()),
    "distributed": lambda d: DataLoader(d, 4, sampler=DistributedSampler(d, 2, 1)),
    "batch sampler": lambda d: DataLoader(d, batch_sampler=BatchSampler(RandomSampler(d), 5, False)),
    "bucket batches": lambda d: DataLoader(d, batch_sampler=BucketBatches()),
    "unbatched": lambda d: DataLoader(d, batch_size=None, shuffle=True),
    "bulk indices": lambda d: DataLoader(Subset(d, range(LENGTH)), batch_size=1, shuffle=True),
    "in subset": lambda d: DataLoader(Subset(d, range(22, 1, -2)), 4, shuffle=True),
}
loaders = pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS.keys())
datasets = pytest.mark.parametrize("dataset", [Augmented, tensors], ids=["augmented", "tensors"])


@loaders
@datasets
def test_resuming_at_p_is_the_suffix_from_p_and_leaves_the_callers_generators(make, dataset):
    loader = make(dataset())
    whole = list(as_stream(loader, 3).batches(2))
    assert len(whole) >= 3
    before = global_states()
    for start in range(len(whole) + 1):
        torch.rand(3)  # what the caller draws in between must not matter
        now = global_states()
        stream = as_stream(loader, 3)
        assert same_bits(list(stream.batches(2, start)), whole[start:])
        assert global_states() == now
    assert before != global_states()
    assert stream.kind == "indexed"
    assert stream.length(2) in (len(whole), None)
    assert stream.state_dict() == {}


@loaders
def test_epochs_and_keys_differ_unless_the_sampler_is_fixed_and_passes_may_alternate(make):
    stream, other_key = as_stream(make(Augmented()), 3), as_stream(make(Augmented()), 4)
    first, second, other = (list(s.batches(e)) for s, e in ((stream, 0), (stream, 1), (other_key, 0)))
    assert not same_bits(first, second)
    assert not same_bits(first, other)
    alternating = list(zip(stream.batches(0), stream.batches(1)))
    assert same_bits([a for a, _ in alternating], first[: len(alternating)])
    assert same_bits([b for _, b in alternating], second[: len(alternating)])


@pytest.mark.parametrize("name", sorted(LOADERS.keys() - {"sequential", "list sampler", "distributed"}))
def test_the_order_itself_repeats_and_differs_between_epochs_and_keys(name):
    def order(key, epoch):
        batches = as_stream(LOADERS[name](tensors()), key).batches(epoch)
        return [batch[1].tolist() for batch in batches]

    assert order(3, 0) == order(3, 0)
    assert order(3, 0) != order(3, 1)
    assert order(3, 0) != order(4, 0)


@settings(max_examples=25)
@given(keys, st.integers(0, 9), st.integers(1, 9), st.booleans(), st.booleans(), st.data())
def test_a_micro_batch_is_a_function_of_key_epoch_and_position(key, epoch, size, shuffle, drop_last, data):
    loader = Loader(Augmented(), size, shuffle=shuffle, drop_last=drop_last)
    stream = loader.stream(key)
    count = stream.length(epoch)
    start = data.draw(st.integers(0, count))
    whole = list(stream.batches(epoch))
    assert len(whole) == count == len(loader)
    assert same_bits(list(loader.stream(key).batches(epoch, start)), whole[start:])
    order = torch.cat([indices for _, indices in whole])
    assert torch.equal(order, epoch_order(key, epoch, LENGTH, shuffle)[: len(order)])
    assert stream.batch_size == size


@settings(max_examples=50)
@given(keys, st.integers(1, 40), st.integers(1, 17), st.integers(1, 4096), st.booleans(), st.booleans(), st.data())
def test_batches_gathered_together_are_those_gathered_alone_in_the_same_alignment(
    key, size, width, nbytes, drop_last, replacement, data
):
    tensors_ = (torch.randn(101, width), torch.arange(101), torch.rand(101) < 0.5)
    sampler = RandomSampler(range(101), replacement=replacement)
    stream = as_stream(DataLoader(TensorDataset(*tensors_), size, sampler=sampler, drop_last=drop_last), key)
    start = data.draw(st.integers(0, stream.length(0)))
    order = epoch_order(key, 0, 101, shuffle=True, replacement=replacement)
    rows = [batch_indices(order, size, p, drop_last) for p in range(start, stream.length(0))]
    with mock.patch.object(gathering, "AT_ONCE", nbytes):
        batches = list(stream.batches(0, start))
    assert same_bits(batches, [[tensor[which] for tensor in tensors_] for which in rows])
    # A product's last bits may depend on where a matrix begins, as a multiple of 64 bytes or not.
    assert all(tensor.data_ptr() % 64 == 0 for batch in batches for tensor in batch)


@loaders
def test_resuming_reads_no_earlier_sample(make):
    dataset = Augmented()
    stream = as_stream(make(dataset), 1)
    list(stream.batches(0))
    whole, dataset.reads[:] = list(dataset.reads), []
    next(iter(stream.batches(0, 2)))
    read = list(dataset.reads)
    first = next(p for p in range(len(whole)) if whole[p : p + len(read)] == read)
    assert first >= 2
    assert len(read) < 10


@loaders
@datasets
def test_batches_have_the_containers_and_bits_that_torchs_loader_gives(make, dataset):
    data = dataset()
    loader = make(data)
    stream, torchs = as_stream(loader, 1), next(iter(loader))
    ours = next(iter(stream.batches(0)))
    assert type(ours) is type(torchs)
    assert [(type(a), a.dtype, a.shape[1:]) for a in ours if isinstance(a, torch.Tensor)] == [
        (type(a), a.dtype, a.shape[1:]) for a in torchs if isinstance(a, torch.Tensor)
    ]


def test_a_sample_drawn_twice_in_an_epoch_is_augmented_in_two_ways():
    loader = DataLoader(Augmented(), 4, sampler=[3, 3, 3, 3])
    [(rows, indices)] = as_stream(loader, 0).batches(0)
    assert indices.tolist() == [3] * 4
    assert len({tuple(row) for row in rows.tolist()}) == 4


def test_a_samples_augmentation_depends_on_its_index_not_on_batch_size_or_order():
    def by_index(loader):
        return {int(i): row.tolist() for rows, ii in as_stream(loader, 5).batches(1) for row, i in zip(rows, ii)}

    assert by_index(Loader(Augmented(), 4)) == by_index(Loader(Augmented(), 7, shuffle=False))


def test_arithmetic_in_the_data_set_rounds_as_in_a_single_threaded_worker():
    if torch.get_num_threads() == 1:
        pytest.skip("one thread")
    seen = []
    dataset = Mapped(lambda i: (seen.append(torch.get_num_threads()), torch.zeros(1))[1])
    threads = torch.get_num_threads()
    list(as_stream(DataLoader(dataset, 2), 0).batches(0))
    assert set(seen) == {1}
    assert torch.get_num_threads() == threads


def test_a_batch_reading_data_set_is_seeded_for_the_batch():
    class Bulk(Augmented):
        def __getitems__(self, indices):
            return [(noise, i) for i, noise in zip(indices, torch.randn(len(indices)))]

    for dataset in (Bulk(), Subset(Bulk(), range(11))):
        loader = DataLoader(dataset, 4, shuffle=True)
        whole = list(as_stream(loader, 1).batches(0))
        assert same_bits(list(as_stream(loader, 1).batches(0, 2)), whole[2:])
        assert len(torch.cat([noise for noise, _ in whole]).unique()) == len(dataset)
        assert not same_bits(list(as_stream(loader, 2).batches(0, 2)), whole[2:])


def test_more_batches_than_are_drawn_at_once_resume_across_the_seam():
    length = 3 * DRAWN_AT_ONCE
    loader = DataLoader(TensorDataset(torch.arange(length)), batch_sampler=BucketBatches(length))
    whole = list(as_stream(loader, 1).batches(0))
    assert len(whole) > DRAWN_AT_ONCE
    for start in (DRAWN_AT_ONCE - 1, DRAWN_AT_ONCE, DRAWN_AT_ONCE + 1, len(whole)):
        assert same_bits(list(as_stream(loader, 1).batches(0, start)), whole[start:])
    assert sorted(torch.cat([rows for [rows] in whole]).tolist()) == list(range(length))


def test_what_a_sampler_draws_does_not_repeat_from_block_to_block():
    class Draws:
        def __iter__(self):
            return ([np.random.randint(10**9)] for _ in range(3 * DRAWN_AT_ONCE))

    tasks = list(SampledPlan(Draws(), None, batched=True).tasks(1, 0, 0, "train"))
    assert len({task.indices[0] for task in tasks}) > 2.9 * DRAWN_AT_ONCE


def test_an_endless_batch_sampler_is_drawn_as_it_is_used():
    class Endless:
        def __iter__(self):
            return ([i % LENGTH, (i + 1) % LENGTH] for i in itertools.count())

    stream = as_stream(DataLoader(tensors(), batch_sampler=Endless()), 0)
    assert stream.length(0) is None
    got = [y.tolist() for _, y in itertools.islice(stream.batches(0, 3), 2)]
    assert got == [[3, 4], [4, 5]]


def test_set_epoch_is_called_on_samplers_also_inside_a_batch_sampler():
    sampler = CountsEpochs()
    for loader in (
        DataLoader(tensors(), 23, sampler=sampler),
        DataLoader(tensors(), batch_sampler=BatchSampler(sampler, 23, False)),
    ):
        [[_, order]] = as_stream(loader, 0).batches(6)
        assert order.tolist() == [(i + 6) % LENGTH for i in range(LENGTH)]


def test_a_samplers_own_generator_is_seeded_and_put_back():
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(tensors(), 4, sampler=SubsetRandomSampler(range(LENGTH), generator=generator))
    before = generator.get_state()
    list(as_stream(loader, 0).batches(0))
    assert torch.equal(before, generator.get_state())


def test_batch_size_and_length_are_known_where_they_can_be():
    data = tensors()
    cases = [
        (DataLoader(data, 4, shuffle=True), 4, 6),
        (DataLoader(data, 4, drop_last=True), 4, 5),
        (DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 5, False)), 5, 5),
        (DataLoader(data, batch_sampler=BucketBatches()), None, None),
        (DataLoader(data, batch_size=None), None, LENGTH),
        (DataLoader(data, 4, sampler=[1, 2, 3, 4, 5]), 4, 2),
    ]
    for loader, batch_size, length in cases:
        stream = as_stream(loader, 0)
        assert isinstance(stream, Stream)
        assert (stream.batch_size, stream.length(0)) == (batch_size, length)
        assert as_stream(stream, 0) is stream


def test_errors_of_a_data_set_say_which_sample_of_which_batch():
    def sample(index):
        if index == 5:
            raise OSError("unreadable")
        return torch.zeros(1)

    with pytest.raises(OSError, match="unreadable") as caught:
        list(as_stream(DataLoader(Mapped(sample), 2), 0).batches(1))
    assert caught.value.__notes__ == ["while reading sample 5 for micro-batch 3 of epoch 2"]


@pytest.mark.parametrize("start", [7, 100])
@pytest.mark.parametrize("name", ["Loader", "sequential", "bucket batches", "list sampler"])
def test_a_position_beyond_the_epoch_means_that_the_data_changed(name, start):
    stream = as_stream(LOADERS[name](tensors()), 0)
    with pytest.raises(DataError, match=f"but {start if name != 'bucket batches' else 100} were already trained"):
        list(stream.batches(0, start if name != "bucket batches" else 100))
    with pytest.raises(ValueError, match="negative"):
        stream.batches(0, -1)


def test_loaders_without_a_batch_are_refused_with_advice():
    empty = TensorDataset(torch.zeros(0))
    with pytest.raises(DataError, match="eval loader has no batch"):
        as_stream(DataLoader(empty), 0, what="eval").batches(0)
    with pytest.raises(DataError, match="drop_last=False"):
        as_stream(DataLoader(tensors(), 100, drop_last=True), 0).batches(0)
    used_up = DataLoader(tensors(), 4, sampler=iter([1, 2]))
    stream = as_stream(used_up, 0)
    list(stream.batches(0))
    with pytest.raises(DataError, match="used up"):
        list(stream.batches(1))


class Endless(IterableDataset):
    def __iter__(self):
        return itertools.repeat(torch.zeros(1))


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (None, "got NoneType; pass functrain's Loader"),
        ("data", "got str; pass"),
        (b"data", "got bytes"),
        (3, "got int"),
        ({"train": []}, "got dict"),
        (torch.zeros(3), r"Loader\(Arrays"),
        (np.zeros(3), r"Loader\(Arrays"),
        ((torch.zeros(3), torch.zeros(3)), r"Loader\(Arrays"),
        (tensors(), "a data set; pass"),
        (Arrays(torch.zeros(3)), "a data set; pass"),
        (ConcatDataset([tensors()]), "a data set; pass"),
        (Endless(), r"yields samples; pass DataLoader"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_loader_is_refused_saying_what_to_pass(wrong, advice):
    with pytest.raises(TypeError, match=f"the eval loader must be .*{advice}"):
        as_stream(wrong, 0, what="eval")


@pytest.mark.parametrize("what", ["loader", "eval_loader"])
def test_messages_call_a_loader_as_the_argument_is_called(what):
    with pytest.raises(TypeError, match=f"^the {what} must be an iterable"):
        as_stream(None, 0, what=what)
    for empty in (DataLoader(TensorDataset(torch.zeros(0))), []):
        with pytest.raises(DataError, match=f"^the {what} has no batch in epoch 1: "):
            list(as_stream(empty, 0, what=what).batches(0))
    for loader in (DataLoader(tensors(), 4), Loader(Arrays(torch.zeros(23)), 4)):
        with pytest.raises(DataError, match=f"^epoch 3 of the {what} has 6 micro-batches, but 9 were"):
            list(as_stream(loader, 0, what=what).batches(2, 9))


def test_out_of_order_loading_is_refused():
    with pytest.raises(ValueError, match="in_order=True"):
        as_stream(DataLoader(tensors(), 2, num_workers=1, in_order=False), 0)
