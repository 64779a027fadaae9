"""Moving batches."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from functrain.data.transfer import Transfer, to_device

Pair = namedtuple("Pair", ["x", "y"])


def test_containers_and_other_leaves_stay_and_arrays_become_tensors():
    batch = Pair([torch.zeros(2), np.ones(2, np.float32)], {"s": "text", "n": 3, "o": np.array(["a"])})
    moved = to_device(batch, "meta")
    assert type(moved) is Pair
    assert all(leaf.device.type == "meta" for leaf in moved.x)
    assert moved.x[1].dtype == torch.float32
    assert moved.y["s"] == "text"
    assert moved.y["n"] == 3
    assert isinstance(moved.y["o"], np.ndarray)


def test_nothing_is_copied_when_it_is_there_already():
    x = torch.zeros(2)
    assert to_device((x,), "cpu")[0] is x


def test_read_only_arrays_are_copied_without_a_warning():
    array = np.ones(2)
    array.flags.writeable = False
    assert to_device(array, "cpu").tolist() == [1, 1]


def test_objects_that_can_move_themselves_are_asked_to():
    class Graph:
        def to(self, device):
            return f"on {device}"

    assert to_device({"g": Graph()}, "cpu") == {"g": "on cpu"}


@pytest.mark.gpu
def test_pinned_batches_arrive_on_the_gpu():
    x = torch.arange(5.0).pin_memory()
    assert to_device((x,), "cuda", non_blocking=True)[0].tolist() == x.tolist()


def test_a_transfer_to_the_cpu_is_to_device():
    x, transfer = torch.zeros(2), Transfer(torch.device("cpu"))
    batch = (x, torch.ones(1))
    assert transfer(batch) is batch
    assert transfer({"a": np.ones(2), "n": 3})["a"].tolist() == [1, 1]


@pytest.mark.gpu
def test_batches_arrive_whole_while_the_gpu_computes_and_stay_so_while_it_uses_them():
    transfer = Transfer(torch.device("cuda", torch.cuda.current_device()))
    weights = torch.randn(2000, 2000, device="cuda")
    sums, expected = [], []
    for number in range(20):
        x = torch.full((1 << 20,), float(number))
        batch = transfer({"x": x, "n": np.full(3, number), "text": "a"})
        x.fill_(-1.0)  # the host goes on: what was copied is the batch as it was
        for _ in range(20):
            weights = (weights @ weights).clamp(-1, 1)  # keeps the device busy, so that the host is ahead
        sums.append(batch["x"].sum() + batch["n"].sum())
        expected.append(number * ((1 << 20) + 3))
        del batch
    assert torch.stack(sums).tolist() == expected


@pytest.mark.gpu
def test_a_batch_that_is_on_the_gpu_stays_where_it_is():
    x = torch.zeros(2, device="cuda")
    assert Transfer(x.device)((x,))[0] is x
