"""functrain's own Loader."""

import dataclasses

import pytest
import torch
from data_helpers import Augmented, global_states, same_bits
from torch.utils.data import IterableDataset, TensorDataset

from functrain.data import Arrays, Loader
from functrain.foundation.errors import DataError


def test_iterating_is_a_fixed_pass_with_a_length():
    loader = Loader(Augmented(), 5)
    before = global_states()
    first, second = list(loader), list(loader)
    assert same_bits(first, second)
    assert len(first) == len(loader) == 5
    assert global_states() == before


def test_an_abandoned_iteration_of_workers_ends_them():
    loader = Loader(Augmented(), 5, num_workers=1, persistent_workers=True)
    for batch in loader:
        assert same_bits(batch, next(iter(Loader(Augmented(), 5))))
        break


def test_the_loader_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Loader(Arrays(torch.zeros(3)), 2).batch_size = 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer"),
        ({"batch_size": True}, "got True"),
        ({"num_workers": -1}, "num_workers must be an integer >= 0"),
        ({"persistent_workers": True}, "num_workers >= 1"),
        ({"prefetch_factor": 2}, "num_workers >= 1"),
        ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor must be"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Loader(Arrays(torch.zeros(3)), **{"batch_size": 1, **arguments})


def test_data_that_make_no_batch_are_refused():
    with pytest.raises(DataError, match="0 examples"):
        Loader(TensorDataset(torch.zeros(0)), 1)
    with pytest.raises(DataError, match="drop_last=False"):
        Loader(Arrays(torch.zeros(3)), 4, drop_last=True)


def test_only_map_style_data_sets_are_taken():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    for wrong in (Stream(), 3, iter([])):
        with pytest.raises(TypeError, match=f"got {type(wrong).__name__}"):
            Loader(wrong, 1)
    assert len(Loader([1, 2, 3], 2)) == 2
