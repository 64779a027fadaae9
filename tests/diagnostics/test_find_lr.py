"""find_lr: the sweep is what a hand-written loop does, and leaves no trace."""

import functools
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft

STEPS = 30


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def batches(count: int = 3, size: int = 6) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, size, 4, generator=generator, dtype=torch.float64)
    return [(x, x.sum(1).gt(0).long() + 1) for x in inputs]


def make_state(optimizer: Any = None, **options: Any) -> ft.TrainState:
    optimizer = ft.optim.sgd(0.3) if optimizer is None else optimizer
    return ft.init_state(network(), ft.classification(), optimizer, precision="fp64", **options)


def reference(optimizer: Any, rates: Any) -> list[float]:
    model = network()
    torch_optimizer, losses, data = optimizer(model.parameters()), [], batches()
    for number, rate in enumerate(rates):
        torch_optimizer.param_groups[0]["lr"] = rate
        x, y = data[number % len(data)]
        loss = F.cross_entropy(model(x), y)
        torch_optimizer.zero_grad()
        loss.backward()
        torch_optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ft.optim.sgd(0.3, momentum=0.9), lambda p: torch.optim.SGD(p, momentum=0.9)),
        (ft.optim.adamw(7.0, weight_decay=0.1), lambda p: torch.optim.AdamW(p, weight_decay=0.1)),
        (
            ft.optim.adamw(ft.schedules.cosine(0.1, total_steps=7, warmup_steps=2), weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, weight_decay=0.1),
        ),
    ],
    ids=["sgd", "adamw", "a schedule is left out"],
)
def test_the_losses_are_those_of_a_hand_written_sweep(ours: Any, theirs: Any) -> None:
    found = ft.find_lr(make_state(ours), batches(), min_lr=1e-4, max_lr=1.0, steps=STEPS, stop_at=1e9)
    np.testing.assert_allclose(found.lr, 1e-4 * 1e4 ** (np.arange(STEPS) / (STEPS - 1)), rtol=1e-12)
    np.testing.assert_allclose(found.loss, reference(theirs, found.lr), rtol=1e-9)
    assert not found.diverged


def test_with_accumulation_a_rate_is_that_of_an_update() -> None:
    whole = [tuple(torch.cat(parts) for parts in zip(*batches(2)))]
    found = ft.find_lr(make_state(accumulate=2), batches(2), steps=STEPS, max_lr=0.5)
    expected = ft.find_lr(make_state(), whole, steps=STEPS, max_lr=0.5)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-9)


def test_of_several_rates_the_first_is_swept_and_the_others_keep_their_ratio() -> None:
    rates: list[tuple[float, ...]] = []

    def spy(inner: Any) -> Any:
        def update(grads: Any, state: Any, params: Any) -> Any:
            updates, new = inner.update(grads, state, params)
            rates.append(tuple(rate.item() for rate in ft.optim.learning_rates(new)))
            return updates, new

        return ft.optim.Optimizer(inner.init, update)

    parts = ft.optim.partition({"0.*": ft.optim.sgd(0.5), "*": ft.optim.sgd(0.05)})
    found = ft.find_lr(make_state(spy(parts)), batches(), steps=5, max_lr=1e-2)
    np.testing.assert_allclose(rates[-5:], [(rate, rate / 10) for rate in found.lr], rtol=1e-12)


class Stateful:
    """A loader that counts what it has given."""

    def __init__(self) -> None:
        self.given = 17

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.given = state["given"]

    def __iter__(self) -> Any:
        for batch in batches():
            self.given += 1
            yield batch


def global_random_state() -> Any:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("compile", [False, True])
def test_state_loader_and_random_generators_are_as_before(compile: bool, bits: Any, monkeypatch: Any) -> None:
    from functrain.diagnostics import lr_range

    monkeypatch.setattr(lr_range, "runner_for", functools.partial(lr_range.runner_for, backend="eager"))
    state, loader = make_state(ema_decay=0.9), Stateful()
    before, random_before = bits(state), global_random_state()
    found = ft.find_lr(state, loader, steps=7, compile=compile)
    assert bits(state) == before
    assert loader.given == 17
    assert global_random_state() == random_before
    assert found == ft.find_lr(state, loader, steps=7, compile=compile)


def test_a_dataloader_is_read_in_the_order_of_fit() -> None:
    x, y = (torch.cat(parts) for parts in zip(*batches()))
    loader = DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True)
    losses: list[float] = []

    @ft.on("after_step")
    def note(event: ft.Event) -> None:
        losses.append(event.metrics["loss"].item())

    found = ft.find_lr(make_state(), loader, min_lr=0.1, max_lr=0.1 * (1 + 1e-12), steps=3)
    ft.fit(make_state(ft.optim.sgd(0.1)), loader, epochs=1, compile=False, progress=False, callbacks=[note])
    np.testing.assert_allclose(found.loss, losses, rtol=1e-9)


def test_divergence_ends_the_sweep_and_the_suggestion_is_below_what_is_stable() -> None:
    # The mean of (w x)^2 with x^2 = 4 has curvature 8: descent is stable below 2 / 8.
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    state = ft.init_state(model, ft.regression(), ft.optim.sgd(1.0), precision="fp64")
    found = ft.find_lr(state, [(torch.full((4, 1), 2.0), torch.zeros(4, 1))], steps=100)
    assert found.diverged
    assert found.lr[-1] < 10
    assert found.suggestion is not None
    assert 1e-3 < found.suggestion < found.minimum < 1.0
    assert found.suggestion < 0.25


def test_where_nothing_falls_there_is_no_suggestion() -> None:
    def flat(model: Any, batch: Any) -> ft.Loss:
        return ft.Loss(0 * model(batch[0]).sum() + 6.0, 6.0)

    found = ft.find_lr(ft.init_state(network(), flat, ft.optim.sgd(0.1), precision="fp64"), batches(), steps=10)
    assert (found.suggestion, found.diverged, len(found.lr)) == (None, False, 10)


def test_losses_that_are_not_finite_end_the_sweep_and_are_not_in_the_curve() -> None:
    data = [*batches(), (torch.full((6, 4), float("nan"), dtype=torch.float64), torch.zeros(6, dtype=torch.long))]
    found = ft.find_lr(make_state(), data, steps=20)
    assert (found.diverged, len(found.loss), len(found.lr), len(found.smoothed)) == (True, 3, 3, 3)
    with pytest.raises(ValueError, match=r"not finite .* before the first update"):
        ft.find_lr(make_state(), data[3:], steps=20)


def test_a_state_of_half_a_window_and_what_could_not_be_put_back_are_refused() -> None:
    state, _ = ft.train_step(make_state(accumulate=2), batches()[0])
    with pytest.raises(ValueError, match="within an accumulation window"):
        ft.find_lr(state, batches())
    with pytest.raises(TypeError, match="iterator"):
        ft.find_lr(make_state(), iter(batches()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_lr": 1.0, "max_lr": 0.1}, "min_lr < max_lr"),
        ({"min_lr": 0.0}, "min_lr < max_lr"),
        ({"steps": 1}, "steps"),
        ({"smoothing": -1.0}, "smoothing"),
        ({"stop_at": 1.0}, "stop_at"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.find_lr(make_state(), batches(), **arguments)


def test_optimizers_without_a_rate_are_refused() -> None:
    with pytest.raises(ValueError, match="is 0 at all times"):
        ft.find_lr(make_state(ft.optim.sgd(0.0)), batches())
    state = make_state()
    with pytest.raises(ValueError, match="no learning rate"):
        ft.find_lr(state.replace(opt_state=()), batches())


def test_the_plot_is_an_image(tmp_path: Any) -> None:
    found = ft.find_lr(make_state(), batches(), steps=10)
    path = found.plot(tmp_path / "lr.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["lr.png"]
