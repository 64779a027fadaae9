"""PoissonLoader: each example by itself, one shape, any position at once."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

import functrain as ft
from functrain.data import Arrays, PoissonLoader
from functrain.data.poisson import PADDING, PoissonPlan


def real(batch: tuple[Tensor, ...]) -> list[int]:
    _, targets, weight = batch
    return targets[weight > 0].tolist()


def test_each_example_is_in_a_batch_with_the_sample_rate_and_independently() -> None:
    plan, draws = PoissonPlan(examples=20, expected=5), 4000
    members = torch.zeros(draws, 20)
    for position in range(draws):
        members[position, plan.drawn(7, 0, position)] = 1
    error = 5 * (0.25 * 0.75 / draws) ** 0.5  # 5 standard errors
    assert (members.mean(0) - 0.25).abs().max() < error
    covariance = members.T.cov() - torch.eye(20) * 0.25 * 0.75
    assert covariance.abs().max() < 5 * 0.25 * 0.75 / draws**0.5
    sizes = members.sum(1)
    assert sizes.var() == pytest.approx(20 * 0.25 * 0.75, rel=0.15)  # binomial: no fixed size


def test_batches_have_one_shape_and_padding_weighs_nothing() -> None:
    loader = PoissonLoader(Arrays(torch.arange(30.0), torch.arange(30)), batch_size=6)
    stream = loader.stream(3)
    batches = [batch for epoch in range(20) for batch in stream.batches(epoch)]
    assert {len(batch[0]) for batch in batches} == {PoissonPlan(30, 6).batch_size}
    assert all(real(batch) == sorted(set(real(batch))) for batch in batches)
    assert len({len(real(batch)) for batch in batches}) > 3
    assert len(loader) == 5


def test_a_batch_may_be_empty_and_a_larger_one_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    loader, drawn = PoissonLoader(Arrays(torch.arange(30.0), torch.arange(30)), batch_size=6), [[], list(range(29))]
    size = PoissonPlan(30, 6).batch_size
    monkeypatch.setattr(PoissonPlan, "drawn", lambda self, key, epoch, position: drawn[position % 2])
    empty, large, *_ = loader
    assert real(empty) == []
    assert len(empty[0]) == size
    assert real(large) == list(range(29))
    assert len(large[0]) == 2 * size


def test_a_pass_may_begin_anywhere_and_workers_change_nothing() -> None:
    data = Arrays(torch.arange(30.0), torch.arange(30))
    stream = PoissonLoader(data, batch_size=6).stream(5)
    whole = [real(batch) for batch in stream.batches(2)]
    assert [real(batch) for batch in stream.batches(2, start=3)] == whole[3:]
    assert whole != [real(batch) for batch in stream.batches(3)]
    workers = PoissonLoader(data, batch_size=6, num_workers=1).stream(5)
    assert [real(batch) for batch in workers.batches(2)] == whole
    workers.close()


def test_weights_of_the_data_are_kept_and_repeats_have_draws_of_their_own() -> None:
    class Noisy(Dataset[tuple[Tensor, int, float]]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Tensor, int, float]:
            return torch.rand(()), index, 0.5

    stream = PoissonLoader(Noisy(), batch_size=3).stream(1)
    batches = list(stream.batches(0)) + list(stream.batches(1))
    assert {w for _, _, weight in batches for w in weight.tolist()} <= {0.0, 0.5}
    again = list(PoissonLoader(Noisy(), batch_size=3).stream(1).batches(0))
    assert torch.equal(again[0][0], batches[0][0])


def test_wrong_arguments_are_refused() -> None:
    data = Arrays(torch.arange(30.0), torch.arange(30))
    with pytest.raises(ValueError, match="from 1 to the 30 examples"):
        PoissonLoader(data, batch_size=31)
    with pytest.raises(TypeError, match="__getitem__"):
        PoissonLoader(iter([1]), batch_size=1)
    assert PADDING < 0
    assert ft.data.PoissonLoader is PoissonLoader
