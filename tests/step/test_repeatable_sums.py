"""Equal steps give equal bits on several threads, where they add to one place."""

import importlib

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.foundation.summation import repeatable_sums

ROWS = 20_000  # of 8 numbers: more than one thread's share


class Looked(nn.Module):
    """Rows of a table by number, as `x[index]` and by `nn.Embedding`."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(50, 8))
        self.embedding = nn.Embedding(50, 8)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.tanh(self.table[rows] + self.embedding(rows))


@pytest.fixture
def several_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.randint(0, 50, (ROWS,)), torch.randn(ROWS, 8)


def all_equal(step, state, batch, times: int) -> bool:
    first, *others = [step(state, batch)[0].params for _ in range(times)]
    return all(torch.equal(first[name], other[name]) for other in others for name in first)


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("step", [ft.train_step, ft.compile(ft.train_step, backend="aot_eager")], ids=["eager", "aot"])
def test_gradients_that_many_threads_add_up_have_the_same_bits_each_time(step, batch):
    state = ft.init_state(Looked(), ft.regression(), ft.optim.sgd(0.1))
    assert all_equal(step, state, batch, 20)


@pytest.mark.usefixtures("several_threads")
def test_without_the_guard_they_have_not(batch):
    """Else the law above would hold by chance."""
    table = torch.randn(50, 8)
    sums = [table.index_put((batch[0],), batch[1], accumulate=True) for _ in range(60)]
    assert any(not torch.equal(sums[0], other) for other in sums)


def test_settings_are_put_back_after_an_error_too():
    with pytest.raises(ZeroDivisionError), repeatable_sums(torch.device("cpu")):
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_inductors_setting_is_as_before_though_code_within_put_torchs_back():
    config = importlib.import_module("torch._inductor.config")
    with repeatable_sums(torch.device("cpu")):
        torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # as torch.cond does
        assert config.deterministic
    assert not config.deterministic


def test_a_stricter_callers_setting_stays():
    torch.use_deterministic_algorithms(True)
    try:
        with repeatable_sums(torch.device("cpu")):
            assert torch.get_deterministic_debug_mode() == 2
        assert torch.get_deterministic_debug_mode() == 2
    finally:
        torch.use_deterministic_algorithms(False)


def test_other_devices_are_left_alone():
    with repeatable_sums(torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()
