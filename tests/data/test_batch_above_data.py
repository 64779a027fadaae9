"""A batch_size above the number of examples costs what the examples cost."""

from itertools import chain

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

import functrain as ft
from functrain.data import Arrays, Loader, as_stream
from functrain.distributed import World
from functrain.loop.batches import Feed

INPUTS = torch.arange(36.0).reshape(12, 3)
DATA = TensorDataset(INPUTS, INPUTS.sum(1, keepdim=True))
ARRAYS = Arrays(*DATA.tensors)


class Endless(IterableDataset):
    def __iter__(self):
        return iter(DATA)


LOADERS = {
    "Loader": lambda size: Loader(ARRAYS, size),
    "balanced": lambda size: Loader(ARRAYS, size, sampling_weights=[1.0] * 6 + [2.0] * 6),
    "more samples": lambda size: Loader(ARRAYS, size, num_samples=20),
    "DataLoader": lambda size: DataLoader(DATA, size),
    "shuffled": lambda size: DataLoader(DATA, size, shuffle=True),
    "weighted": lambda size: DataLoader(DATA, size, sampler=WeightedRandomSampler([1.0] * 12, 12)),
    "iterable": lambda size: DataLoader(Endless(), size),
    "batches": lambda size: list(DataLoader(DATA, size)),
}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("ranks", [1, 8])
def test_a_batch_is_padded_to_what_the_data_can_give(kind, ranks):
    expected = 20 if kind == "more samples" else 12
    for one_pass in (lambda feed: chain.from_iterable(feed.blocks(0)), lambda feed: feed.windows(0, 0, 1, "extend")):
        feed = Feed(as_stream(LOADERS[kind](100_000), 1), ft.regression(), torch.device("cpu"), World(0, ranks))
        (micro_batch,) = one_pass(feed)
        assert micro_batch.examples == expected
        assert len(micro_batch.batch[0]) == -(-expected // ranks)
    assert ranks > 1 or kind in ("weighted", "iterable", "batches") or len(micro_batch.batch) == 2  # no weight needed


@pytest.mark.parametrize("kind", LOADERS)
def test_a_ragged_batch_is_padded_to_a_full_one_as_before(kind):
    feed = Feed(as_stream(LOADERS[kind](5), 1), ft.regression(), torch.device("cpu"), World(0, 1))
    batches = list(chain.from_iterable(feed.blocks(0)))
    assert {len(micro_batch.batch[0]) for micro_batch in batches} == {5}
    assert batches[-1].examples == (5 if kind == "more samples" else 2)


@pytest.mark.parametrize("kind", ["Loader", "DataLoader"])
def test_training_and_evaluation_are_those_of_a_batch_size_of_all_examples(kind):
    state = ft.init_state(nn.Linear(3, 1), ft.regression(), ft.optim.sgd(1e-4))
    options = {"epochs": 3, "compile": False, "progress": False}
    found, expected = (
        ft.fit(state, LOADERS[kind](size), eval_loader=LOADERS[kind](size), **options) for size in (100_000, 12)
    )
    assert found.history == expected.history
    assert not ft.diff_states(found.state.params, expected.state.params)
    assert len(ft.predict(state, LOADERS[kind](100_000), compile=False)) == 12
