"""`torch.compile(ft.train_step, fullgraph=True)`, written by a user: the bits of functrain's own compilation."""

import pytest
import torch
from torch import nn

import functrain as ft

SETTINGS = {
    "accumulated": {"accumulate": 2, "ema_decay": 0.9, "clip_norm": 0.1, "statistics": "module", "precision": "bf16"},
    "scheduled": {"optimizer": ft.optim.sgd(ft.schedules.cosine(0.1, total_steps=10), momentum=0.9)},
}


def make(dropout: float = 0.0, **options) -> ft.TrainState:
    torch.manual_seed(0)
    last = [nn.Dropout(dropout)] if dropout else []
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3), *last)
    model, optimizer = options.pop("model", model), options.pop("optimizer", ft.optim.adamw(1e-2))
    return ft.init_state(model, ft.classification(), optimizer, **options)


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)) for _ in range(count)]


def assert_same(ours, theirs) -> None:
    (our_state, our_metrics), (state, metrics) = ours, theirs
    assert ft.diff_states(our_state, state) == []
    counters = ("step", "epoch", "batch_idx", "samples_seen", "micro_step", "key")
    assert [getattr(state, name) for name in counters] == [getattr(our_state, name) for name in counters]
    assert sorted(metrics) == sorted(our_metrics)
    torch.testing.assert_close(metrics, our_metrics, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def trained(step, state, count: int):
    for batch in batches(count):
        state, metrics = step(state, batch)
    return state, metrics


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS.keys())
def test_it_has_the_bits_of_functrains_own(options) -> None:
    users = torch.compile(ft.train_step, fullgraph=True, backend="aot_eager")
    ours = ft.compile(ft.train_step, backend="aot_eager")
    assert_same(trained(ours, make(**options), 4), trained(users, make(**options), 4))


@pytest.mark.slow
def test_by_inductor_it_has_the_bits_of_functrains_own() -> None:
    users = torch.compile(ft.train_step, fullgraph=True)
    plain = {"optimizer": ft.optim.sgd(0.1, momentum=0.9), "model": nn.Linear(4, 3)}
    assert_same(trained(ft.compile(ft.train_step), make(**plain), 1), trained(users, make(**plain), 1))


def test_there_is_one_program_for_the_first_values_of_the_counters_and_one_for_all_others() -> None:
    graphs = []

    def backend(graph, examples):
        graphs.append(graph)
        return graph

    trained(torch.compile(ft.train_step, fullgraph=True, backend=backend), make(model=nn.Linear(4, 3)), 6)
    assert len(graphs) == 2


def test_another_recipe_is_another_program() -> None:
    users = torch.compile(ft.train_step, fullgraph=True, backend="aot_eager")
    for lr in (0.1, 0.2):
        optimizer = ft.optim.sgd(lr)
        ours = ft.train_step(make(optimizer=optimizer), batches(1)[0])
        torch.testing.assert_close(users(make(optimizer=optimizer), batches(1)[0])[0].params, ours[0].params)


def test_eval_step_is_compiled_too() -> None:
    state, (batch,) = make(), batches(1)
    users = torch.compile(ft.eval_step, fullgraph=True, backend="aot_eager")(state, batch)
    ours = ft.compile(ft.eval_step, backend="aot_eager")(state, batch)
    assert users.names == ours.names
    assert torch.equal(users.sums, ours.sums)


def test_a_step_may_be_a_part_of_a_users_function() -> None:
    def two(state, first, second):
        state, _ = ft.train_step(state, (first[0] * 2, first[1]))
        return ft.train_step(state, second)

    first, second = batches(2)
    users = torch.compile(two, fullgraph=True, backend="aot_eager")
    ours = ft.compile(ft.train_step, backend="aot_eager")
    state, _ = ours(make(), (first[0] * 2, first[1]))
    assert_same(ours(state, second), users(make(), first, second))


def test_random_numbers_are_refused() -> None:
    users = torch.compile(ft.train_step, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match=r"draws random numbers.*use functrain.compile"):
        users(make(dropout=0.5), batches(1)[0])
