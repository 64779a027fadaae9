"""Moving batches."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from functrain.data.transfer import to_device

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
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_arrive_on_the_gpu():
    x = torch.arange(5.0).pin_memory()
    assert to_device((x,), "cuda", non_blocking=True)[0].tolist() == x.tolist()
