"""find_batch_size: the largest batch that fits, by trial, with nothing changed."""

import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain.diagnostics import batch_size, host_memory
from functrain.diagnostics.batch_size import BatchSizes, Trial
from functrain.foundation.errors import OutOfMemoryError


class Hungry(nn.Module):
    """Runs out of memory with more than `limit` examples."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.inner, self.norm, self.limit = nn.Linear(2, 3), nn.BatchNorm1d(3), limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.norm(self.inner(x))


DATA = [(torch.randn(4, 2), torch.tensor([0, 1, 2, 0]))] * 3


def make_state(limit: int, **options: Any) -> ft.TrainState:
    return ft.init_state(Hungry(limit), ft.classification(), ft.optim.adamw(1e-2), **options)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 5000))
def test_the_answer_fits_and_is_at_most_a_sixteenth_below_the_largest(most: int, start: int, limit: int) -> None:
    start, limit = min(start, most, limit), max(start, limit)
    trials = batch_size._search(lambda size: Trial(size, size <= most, 1.0 if size <= most else None), start, limit)
    largest = max(trial.batch_size for trial in trials if trial.fits)
    best = min(most, limit)
    assert best - max(1, best / 16) < largest <= best
    assert [t.batch_size for t in trials] == sorted({t.batch_size for t in trials})
    assert len(trials) < 30


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_fits_is_found(accumulate: int) -> None:
    found = ft.find_batch_size(make_state(37, accumulate=accumulate), DATA, limit=1000)
    assert found.bounded
    assert 35 <= found.largest <= 37


def test_the_limit_is_the_number_of_examples() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(torch.randn(20, 2), torch.zeros(20, dtype=torch.long)), batch_size=5)
    found = ft.find_batch_size(make_state(10**6), loader)
    assert (found.largest, found.bounded) == (20, False)


def test_state_loader_and_random_generators_are_as_before(bits: Any) -> None:
    state, loader = make_state(9), list(DATA)
    before = bits(state), bits(loader)
    randomness = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
    ft.find_batch_size(state, loader)
    assert (bits(state), bits(loader)) == before
    assert (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()) == randomness
    with pytest.raises(TypeError, match="iterator"):
        ft.find_batch_size(state, iter(loader))


def test_nothing_fits_and_other_errors() -> None:
    with pytest.raises(OutOfMemoryError, match="not even 2 examples"):
        ft.find_batch_size(make_state(1), DATA)
    state = ft.init_state(nn.Linear(5, 3), ft.classification(), ft.optim.sgd(0.1))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ft.find_batch_size(state, DATA)


@pytest.mark.parametrize("arguments", [{"start": 0}, {"limit": 1.5}, {"start": 9, "limit": 8}])
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"start|limit"):
        ft.find_batch_size(make_state(9), DATA, **arguments)


def test_the_fastest_is_the_smallest_of_the_fast_ones() -> None:
    trials = (Trial(8, True, 1.0), Trial(16, True, 1.01), Trial(32, True, 2.0), Trial(48, False, None))
    assert BatchSizes(32, True, trials).fastest == 16


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.inner(x)[:, None] * torch.ones(100_000, 1)).mean(1)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_cpus_memory_is_a_bound_that_does_not_end_the_process(monkeypatch: Any) -> None:
    import resource

    monkeypatch.setattr(host_memory, "available_memory", lambda: 60_000_000)
    before = resource.getrlimit(resource.RLIMIT_AS)
    state = ft.init_state(Wide(), ft.classification(), ft.optim.sgd(0.1))
    found = ft.find_batch_size(state, DATA)
    # An example takes 1.2 MB at least twice (of the product and of tanh); what the allocator had kept counts for more.
    assert found.bounded
    assert 4 <= found.largest <= 200
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_containers_limit_counts(monkeypatch: Any, tmp_path: Any) -> None:
    (tmp_path / "max").write_text("5000\n")
    (tmp_path / "current").write_text("2000\n")
    monkeypatch.setattr(host_memory, "_CGROUPS", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    if sys.platform == "linux":
        assert host_memory.available_memory() == 3000
        (tmp_path / "max").write_text("max\n")
        assert host_memory.available_memory() > 3000
