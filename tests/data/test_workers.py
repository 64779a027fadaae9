"""Workers change no bit, are started as often as they should be, and survive a Ctrl-C."""

import os
import signal

import pytest
import torch
from data_helpers import Augmented, global_states, noisy_collate, same_bits
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

from functrain.data import Loader, as_stream
from functrain.foundation.errors import DataError


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("collate", [None, noisy_collate])
def test_workers_prefetching_and_resuming_change_no_bit(persistent, collate):
    alone = as_stream(Loader(Augmented(), 3, collate_fn=collate), 9)
    expected = {epoch: list(alone.batches(epoch)) for epoch in (0, 1)}
    loader = DataLoader(
        Augmented(),
        3,
        shuffle=True,
        num_workers=2,
        collate_fn=collate,
        persistent_workers=persistent,
        prefetch_factor=3,
    )
    before = global_states()
    stream = as_stream(loader, 9)
    assert same_bits(list(stream.batches(1, 2)), expected[1][2:])
    next(stream.batches(0))  # abandoned with batches on their way
    assert same_bits(list(stream.batches(0)), expected[0])
    assert global_states() == before
    stream.close()


def test_tensor_data_sets_and_repeated_indices_are_the_same_through_workers():
    for dataset in (TensorDataset(torch.arange(9)), Augmented()):
        loaders = [DataLoader(dataset, 4, sampler=[1, 1, 8, 2, 1, 0], num_workers=n) for n in (0, 1)]
        first, second = (list(as_stream(loader, 3).batches(0)) for loader in loaders)
        assert same_bits(first, second)


class WorkerProbe(Dataset):
    def __init__(self):
        self.opened = 0

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor([os.getpid(), self.opened])


def open_file(worker):
    info = get_worker_info()
    assert len(info.dataset) == 8
    info.dataset.opened = info.dataset.opened + 1 + int(torch.randint(1000, ()))


def test_persistent_workers_start_once_and_worker_init_fn_reaches_the_data_set_with_seeded_draws():
    def run(persistent):
        loader = DataLoader(WorkerProbe(), 4, num_workers=1, persistent_workers=persistent, worker_init_fn=open_file)
        stream = as_stream(loader, 4)
        rows = torch.cat([torch.cat(list(stream.batches(epoch, start))) for epoch, start in ((0, 0), (1, 1), (2, 0))])
        stream.close()
        return set(rows[:, 0].tolist()), set(rows[:, 1].tolist())

    pids, opened = run(persistent=True)
    assert len(pids) == 1
    assert os.getpid() not in pids
    again, opened_again = run(persistent=False)
    assert len(again) == 3
    assert opened == opened_again
    assert len(opened) == 1


class Interrupting(Dataset):
    """Sends its own worker the signal that a terminal sends to all processes on Ctrl-C."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGINT)
        return torch.tensor([index])


def test_workers_outlive_a_ctrl_c():
    stream = as_stream(DataLoader(Interrupting(), 2, num_workers=1), 0)
    assert [rows.flatten().tolist() for rows in stream.batches(0)] == [[0, 1], [2, 3]]


def test_closing_or_opening_a_newer_pass_ends_the_older_one():
    stream = as_stream(Loader(Augmented(), 3, num_workers=1, persistent_workers=True), 0)
    older = stream.batches(0)
    next(older)
    newer = stream.batches(1)
    with pytest.raises(DataError, match="newer one was opened"):
        next(older)
    first = next(newer)
    stream.close()
    assert list(newer) == []
    assert same_bits(next(stream.batches(1)), first)
    stream.close()


def test_an_error_in_a_worker_says_which_sample():
    class Failing(WorkerProbe):
        def __getitem__(self, index):
            raise OSError("unreadable")

    with pytest.raises(OSError, match="while reading sample 0 for micro-batch 1 of epoch 4"):
        list(as_stream(DataLoader(Failing(), 2, num_workers=1), 0).batches(3))


def test_a_spawned_worker_gives_the_same_batches():
    loaders = [
        DataLoader(TensorDataset(torch.arange(6)), 2, shuffle=True, **options)
        for options in ({}, {"num_workers": 1, "multiprocessing_context": "spawn"})
    ]
    first, second = (list(as_stream(loader, 3).batches(0)) for loader in loaders)
    assert same_bits(first, second)


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 1])
def test_pinned_batches_have_the_same_bits(workers):
    stream = as_stream(Loader(Augmented(), 4, pin_memory=True, num_workers=workers), 1)
    pinned = list(stream.batches(0))
    assert all(leaf.is_pinned() for batch in pinned for leaf in batch)
    assert same_bits(pinned, list(as_stream(Loader(Augmented(), 4), 1).batches(0)))
