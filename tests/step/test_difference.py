"""diff_states: bits, not values, and the names of the leaves."""

import pytest
import torch

import functrain as ft


def test_a_state_equals_itself_and_its_copy(everything_state, image_batch):
    state, _ = ft.train_step(everything_state(accumulate=2, precision="fp16"), image_batch())
    assert ft.diff_states(state, state) == []
    assert ft.diff_states(state, state.replace(params={n: p.clone() for n, p in state.params.items()})) == []


def test_what_a_step_moves_is_named_with_count_and_size(everything_state, image_batch):
    state = everything_state(optimizer=ft.optim.sgd(0.1))
    new, _ = ft.train_step(state, image_batch())
    found = {difference.path: difference for difference in ft.diff_states(state, new)}
    assert list(found) == sorted(found)
    assert {"params/conv.weight", "buffers/calls", "epoch_totals", "step", "batch_idx"} <= found.keys()
    assert "params/scale" not in found
    assert found["step"].reason == "0 and 1"
    weight = found["params/conv.weight"]
    moved = (new.params["conv.weight"] - state.params["conv.weight"]).abs().double()
    assert (weight.count, weight.reason) == (27, "27 of 27 elements differ")
    assert weight.largest == pytest.approx(moved.max().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("left", "right", "count", "largest"),
    [
        (torch.tensor([float("nan"), float("inf"), 1.0]), torch.tensor([float("nan"), float("inf"), 1.5]), 1, 0.5),
        (torch.tensor(0.0), torch.tensor(-0.0), 1, 0.0),
        (torch.tensor([True, False]), torch.tensor([True, True]), 1, 1.0),
        (torch.tensor([1, 2], dtype=torch.int64), torch.tensor([3, 2]), 1, 2.0),
        (torch.ones(2, dtype=torch.bfloat16), torch.full((2,), 2.0, dtype=torch.bfloat16), 2, 1.0),
        (torch.ones(2, 3).t(), torch.zeros(3, 2), 6, 1.0),
    ],
)
def test_bits_are_compared_element_by_element(left, right, count, largest):
    (difference,) = ft.diff_states({"x": left}, {"x": right})
    assert (difference.count, difference.largest) == (count, largest)
    assert ft.diff_states({"x": left}, {"x": left.clone()}) == []


def test_what_cannot_be_compared_element_by_element_is_told_in_words():
    left = {"a": torch.zeros(2), "b": torch.zeros(1), "c": 1, "d": torch.zeros(0), "only": 1}
    right = {"a": torch.zeros(3), "b": torch.zeros(1).double(), "c": 1.0, "d": torch.zeros(0), "other": 1}
    found = {difference.path: difference for difference in ft.diff_states(left, right)}
    assert {path: difference.reason for path, difference in found.items()} == {
        "a": "torch.float32[2] and torch.float32[3]",
        "b": "torch.float32[1] and torch.float64[1]",
        "c": "1 and 1.0",
        "only": "only in the first",
        "other": "only in the second",
    }
    assert all(difference.count is None for difference in found.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("start", [0.0, 1.0, -1.0, 3e-6, -0.25])
def test_ulps_count_the_steps_of_nextafter_and_first_says_where(dtype, start):
    left = torch.full((2, 3), start, dtype=dtype)
    right, there = left.clone(), torch.tensor(1e3, dtype=dtype)
    for expected in (1, 2, 3):
        right[1, 2] = _next_after(right[1, 2], there)
        (difference,) = ft.diff_states({"x": left}, {"x": right})
        assert (difference.first, difference.ulps, difference.count) == ((1, 2), expected, 1)


def _next_after(value, there):
    if value.dtype in (torch.float32, torch.float64):
        return torch.nextafter(value, there)
    bits = value.view(torch.int16)
    step = 1 if value >= 0 else -1
    return (bits + step).view(value.dtype)


def test_where_there_is_no_distance_ulps_are_none():
    for left, right in ((float("nan"), 1.0), (1, 2)):
        (difference,) = ft.diff_states({"x": torch.tensor([left])}, {"x": torch.tensor([right])})
        assert (difference.first, difference.ulps) == ((0,), None)
    (difference,) = ft.diff_states({"x": torch.tensor(0.0)}, {"x": torch.tensor(-0.0)})
    assert (difference.first, difference.ulps) == ((), 0)
    (difference,) = ft.diff_states({"x": torch.tensor(-1e-45)}, {"x": torch.tensor(1e-45)})
    assert difference.ulps == 2
