"""Length grouping: padding at most 5 %, neighbour correlation at most 0.15, any position by arithmetic."""

import numpy as np
import pytest
import torch
from data_helpers import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset

import functrain as ft
from functrain.data import Arrays, Loader, as_stream
from functrain.data.length_groups import grouped_order, lengths_of, neighbour_correlation, padding_share

SHAPES = {
    "uniform": lambda rng, count: rng.integers(1, 513, count),
    "text": lambda rng, count: np.clip(rng.lognormal(4, 0.8, count), 1, 2000).astype(int),
    "short": lambda rng, count: rng.geometric(0.1, count),
    "two kinds": lambda rng, count: rng.choice([10, 500], count),
}


def lengths_like(shape, count, seed=0):
    return torch.from_numpy(SHAPES[shape](np.random.default_rng(seed), count)).long()


@given(st.sampled_from(sorted(SHAPES)), st.integers(4000, 6000), st.sampled_from([8, 32]), st.integers(0, 999))
@settings(max_examples=12)
def test_padding_is_at_most_5_percent_and_neighbours_correlate_by_at_most_015(shape, count, batch_size, seed):
    lengths = lengths_like(shape, count, seed)
    order = grouped_order(lengths, batch_size, key=seed)
    assert torch.equal(order.sort().values, torch.arange(count))
    grouped = lengths[order]
    # No order of full batches has less padding than the sorted one; of 125 batches with a heavy tail it may have more.
    least = max(padding_share(lengths.sort(descending=way).values, batch_size) for way in (False, True))
    assert padding_share(grouped, batch_size) <= max(0.05, least + 0.001)
    if shape != "text" or batch_size == 8:
        assert padding_share(grouped, batch_size) <= 0.05
    full = count // batch_size
    means = grouped[: full * batch_size].view(full, batch_size).double().mean(1)
    assert np.corrcoef(means[:-1], means[1:])[0, 1] <= 0.15 + 1e-9


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(1, 16), st.integers(0, 99))
def test_any_lengths_give_a_permutation_whose_full_batches_hold_the_bound(lengths, batch_size, key):
    lengths = torch.tensor(lengths)
    order = grouped_order(lengths, batch_size, key)
    assert torch.equal(order.sort().values, torch.arange(len(lengths)))
    full = len(lengths) // batch_size
    means = lengths[order][: full * batch_size].view(full, batch_size).double().mean(1)
    assert neighbour_correlation(means) <= 0.15


def test_batches_differ_between_epochs_and_a_shuffled_order_pads_far_more():
    lengths = lengths_like("text", 32_768)
    first, second = (grouped_order(lengths, 32, key) for key in (1, 2))
    companions = [{frozenset(rows.tolist()) for rows in order.view(-1, 32)} for order in (first, second)]
    assert not companions[0] & companions[1]
    shuffled = padding_share(lengths[torch.randperm(32_768, generator=torch.Generator().manual_seed(0))], 32)
    assert shuffled > 0.4
    assert padding_share(lengths[first], 32) <= 0.05


class Texts(Dataset):
    def __init__(self, lengths):
        self.lengths, self.reads = lengths, []

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        self.reads.append(index)
        return torch.full((int(self.lengths[index]),), index), torch.full((int(self.lengths[index]),), index)


def test_a_loader_reaches_any_position_without_reading_what_comes_before():
    data = Texts(lengths_like("uniform", 203))
    loader = Loader(data, 8, lengths=data.lengths, pad_to=1)
    whole = list(as_stream(loader, 3).batches(2))
    data.reads.clear()
    late = list(as_stream(loader, 3).batches(2, start=20))
    assert same_bits(whole[20:], late)
    assert len(data.reads) == 203 - 20 * 8
    read = torch.cat([targets[:, 0] for _, targets in whole])
    assert torch.equal(read.sort().values, torch.arange(203))
    with_workers = as_stream(Loader(data, 8, lengths=data.lengths, pad_to=1, num_workers=1), 3)
    assert same_bits(whole, list(with_workers.batches(2)))
    with_workers.close()


def test_other_lengths_are_another_order_which_a_resume_notices(tmp_path):
    inputs, labels = torch.rand(20, 3), torch.arange(20) % 2
    state = ft.init_state(torch.nn.Linear(3, 2), ft.classification(), ft.optim.sgd(0.1))
    options = {"run_dir": tmp_path, "progress": False, "compile": False}
    loader = Loader(Arrays(inputs, labels), 4, lengths=torch.arange(20))
    ft.fit(state, loader, epochs=1, **options)
    changed = Loader(Arrays(inputs, labels), 4, lengths=torch.arange(20).flip(0))
    with pytest.raises(ft.ResumeRefusedError, match=r"lengths was .*: the examples are put into other batches"):
        ft.fit(state, changed, epochs=2, strict_resume=True, **options)


def test_lengths_are_those_of_the_data_behind_subsets():
    data = Texts([3, 1, 2])
    assert lengths_of(Subset(Subset(data, [2, 0, 1]), [0, 2])) == [2, 1]
    with pytest.raises(TypeError, match="does not say its lengths: give it an attribute `lengths`"):
        lengths_of(Arrays(torch.zeros(3)))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"lengths": [1, 2]}, ValueError, "one number for each of the 3 examples"),
        ({"lengths": [1, -2, 3]}, ValueError, "lengths must be 0 or more; that of example 1 is -2"),
        ({"lengths": [1.0, 2.0, 3.0]}, TypeError, "lengths must be whole numbers"),
        ({"lengths": "abc"}, TypeError, "lengths must be whole numbers"),
        ({"lengths": [1, 2, 3], "shuffle": False}, ValueError, "lengths needs shuffle=True"),
        ({"lengths": [1, 2, 3], "num_samples": 5}, ValueError, "lengths group the examples of an epoch, num_samples"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        Loader(Arrays(torch.zeros(3)), 1, **options)
