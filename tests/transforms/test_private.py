"""Private training: one example changes little, the noise is as declared, and the accountant counts the updates."""

import importlib
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import functrain as ft
from functrain.distributed import World
from functrain.errors import FunctrainError
from functrain.step.gradient import gradient

ROWS, CLIP = 6, 0.05


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def make_state(net: nn.Module | None = None, optimizer: Any = None, **options: Any) -> ft.TrainState:
    options = {"precision": "fp64", **options}
    return ft.init_state(net or network(), ft.classification(), optimizer or ft.optim.sgd(1.0), **options)


def make_private(state: ft.TrainState | None = None, **options: Any) -> ft.TrainState:
    options = {"max_grad_norm": CLIP, "noise_multiplier": 0.0, "expected_batch_size": ROWS, **options}
    return ft.transforms.private(state or make_state(), **options)


def make_batch(count: int = ROWS, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator).double(), torch.randint(3, (count,), generator=generator)


def moved(state: ft.TrainState, batch: Any) -> Tensor:
    """What an update with rate 1 subtracts from the parameters, as one vector."""
    after, _ = ft.train_step(state, batch)
    return torch.cat([(state.params[name] - after.params[name]).flatten() for name in state.params])


def by_hand(state: ft.TrainState, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The clipped sum over single examples, divided by their expected number."""
    total = torch.zeros(())
    for row in range(len(batch[0])):
        grads = gradient(state, tuple(part[row : row + 1] for part in batch), {}).grads
        one = torch.cat([grad.flatten() for grad in grads.values()])
        total = total + one * min(1.0, CLIP / one.norm().item())
    return total / ROWS


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_the_update_is_the_mean_of_clipped_gradients(chunk_size: int | None) -> None:
    batch, state = make_batch(), make_state()
    found = moved(make_private(chunk_size=chunk_size), batch)
    torch.testing.assert_close(found, by_hand(state, batch), rtol=1e-12, atol=1e-14)
    assert not torch.allclose(found, moved(state, batch))


def test_without_clipping_and_noise_it_is_the_ordinary_update() -> None:
    batch, state = make_batch(), make_state(optimizer=ft.optim.adamw(1e-2))
    found = moved(make_private(state, max_grad_norm=1e6), batch)
    torch.testing.assert_close(found, moved(state, batch), rtol=1e-12, atol=1e-14)


def test_the_update_is_that_of_opacus() -> None:
    opacus = pytest.importorskip("opacus")
    net, (inputs, labels) = network().double(), make_batch()
    found, _ = ft.train_step(make_private(), (inputs, labels))
    wrapped = opacus.GradSampleModule(net, loss_reduction="mean")
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(net.parameters(), 1.0),
        noise_multiplier=0.0,
        max_grad_norm=CLIP,
        expected_batch_size=ROWS,
        loss_reduction="mean",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        F.cross_entropy(wrapped(inputs), labels).backward()
    optimizer.step()
    for name, param in net.named_parameters():  # opacus adds 1e-6 to each norm
        torch.testing.assert_close(found.params[name], param.detach(), rtol=1e-4, atol=CLIP * 2e-5)


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 6), scale=st.sampled_from([1.0, 1e4, math.inf, math.nan]), seed=st.integers(0, 9))
def test_one_example_more_moves_the_sum_by_the_norm_at_most(count: int, scale: float, seed: int) -> None:
    inputs, labels = make_batch(count + 1, seed)
    inputs[-1] *= scale
    state = make_private()
    change = (moved(state, (inputs, labels)) - moved(state, (inputs[:-1], labels[:-1]))) * ROWS
    assert change.norm() <= CLIP * (1 + 1e-12)
    assert ft.train_step(state, (inputs, labels))[1]["skipped"] == 0


def test_examples_of_weight_0_change_nothing_and_a_batch_may_have_no_others() -> None:
    state, (inputs, labels) = make_private(), make_batch()
    padded = (torch.cat([inputs, inputs * 3]), labels.repeat(2), torch.tensor([1.0] * ROWS + [0.0] * ROWS))
    torch.testing.assert_close(moved(state, padded), moved(state, (inputs, labels)), rtol=1e-12, atol=1e-15)
    after, metrics = ft.train_step(make_private(noise_multiplier=1.0), (inputs, labels, torch.zeros(ROWS)))
    assert after.step == 1
    assert metrics["skipped"] == 0
    assert metrics["loss"] == 0
    assert not torch.equal(after.params["0.weight"], state.params["0.weight"])


def test_the_noise_has_the_declared_deviation_and_follows_from_the_state() -> None:
    batch, sigma = make_batch(), 2.0
    state = make_private(make_state(nn.Linear(4, 3)), noise_multiplier=sigma)
    clean = moved(make_private(make_state(nn.Linear(4, 3))).replace(params=state.params), batch)
    draws = torch.stack([moved(state.replace(step=step), batch) - clean for step in range(400)])
    deviation = draws * ROWS / (sigma * CLIP)
    count = deviation.numel()  # 6000 draws; bounds of 5 standard errors
    assert abs(deviation.mean()) < 5 / count**0.5
    assert abs(deviation.square().mean() - 1) < 5 * (2 / count) ** 0.5
    assert torch.equal(moved(state, batch), moved(state, batch))
    assert len(set(draws[:, 0].tolist())) == len(draws)


def test_it_reports_the_mean_loss_and_metrics_of_the_real_examples() -> None:
    batch = make_batch(4)
    metrics, plain = ft.train_step(make_private(), batch)[1], ft.train_step(make_state(), batch)[1]
    for name in ("loss", "accuracy"):
        torch.testing.assert_close(metrics[name], plain[name], rtol=1e-12, atol=0)
    assert metrics["weight_sum"] == ROWS


def test_metrics_that_are_asked_for_are_those_of_the_batch() -> None:
    batch, options = make_batch(4), {"metrics": ["f1"]}
    metrics = ft.train_step(make_private(make_state(**options)), batch)[1]
    assert metrics["f1"] == ft.train_step(make_state(**options), batch)[1]["f1"]


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("functrain.transforms.private")  # the name is the function's, too
    monkeypatch.setattr(module, "current_world", lambda: World(0, 2))
    with pytest.raises(FunctrainError, match="trained by one process, and there are 2"):
        ft.train_step(make_private(), make_batch())


def test_norms_to_choose_the_clipping_by_are_those_without_privacy() -> None:
    state, batch = make_state(), make_batch()
    found = ft.transforms.per_sample_gradient_norms(make_private(state, noise_multiplier=1.0), batch)
    assert torch.equal(found, ft.transforms.per_sample_gradient_norms(state, batch))
    assert (found > CLIP).any()


def test_evaluation_is_that_of_the_state_without_privacy() -> None:
    state, batch = make_state(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))), make_batch()
    assert ft.evaluate(make_private(state), [batch]) == ft.evaluate(state, [batch])
    assert torch.equal(ft.predict(make_private(state), [batch]), ft.predict(state, [batch]))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_step_makes_the_same_update(backend: str) -> None:
    state, batch = make_private(noise_multiplier=1.0), make_batch()
    compiled, _ = ft.compile(ft.train_step, backend=backend)(state, batch)
    eager, _ = ft.train_step(state, batch)
    for name, param in eager.params.items():
        torch.testing.assert_close(compiled.params[name], param, rtol=1e-12, atol=1e-14)


def test_a_private_run_that_is_stopped_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    loader = ft.data.PoissonLoader(ft.data.Arrays(*make_batch(24)), batch_size=8)
    options: dict[str, Any] = {"compile": False, "progress": False}

    def state() -> ft.TrainState:
        return make_private(noise_multiplier=1.0, expected_batch_size=8)

    whole = ft.fit(state(), loader, steps=7, **options).state
    ft.fit(state(), loader, steps=4, run_dir=tmp_path, **options)
    resumed = ft.fit(state(), loader, steps=7, run_dir=tmp_path, **options).state
    assert ft.digest(resumed) == ft.digest(whole)
    assert resumed.step == 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"accumulate": 2}, "accumulate=2.*chunk_size"),
        ({"precision": "fp16"}, "loss scale.*bf16"),
        ({"optimizer": ft.optim.sam(ft.optim.sgd(0.1))}, "second gradient"),
        ({"activations": True}, "statistics of activations"),
    ],
)
def test_states_that_cannot_train_privately_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_private(make_state(**options))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="private already"):
        make_private(make_private())
    with pytest.raises(ValueError, match="max_grad_norm must be a finite number > 0"):
        make_private(max_grad_norm=0.0)
    with pytest.raises(ValueError, match="expected_batch_size must be a whole number"):
        make_private(expected_batch_size=0.5)
    with pytest.raises(FunctrainError, match="BatchNorm1d"):
        make_private(make_state(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))))


def test_the_accountant_has_the_closed_form_of_full_batches() -> None:
    """Mironov 2017, corollary 3, with the conversion of Balle et al. 2020, theorem 21; over opacus's orders."""
    pytest.importorskip("opacus")
    sigma, steps, delta = 4.0, 30, 1e-5
    state = make_private(noise_multiplier=sigma).replace(step=steps)
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    expected = min(
        steps * a / (2 * sigma**2) + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in orders
    )
    found = ft.transforms.privacy_spent(state, sample_rate=1.0, delta=delta)
    assert found == pytest.approx(expected, rel=1e-9)
    assert ft.transforms.privacy_spent(make_private(noise_multiplier=sigma), sample_rate=1.0, delta=delta) == 0
    assert ft.transforms.privacy_spent(make_private().replace(step=1), sample_rate=0.1, delta=delta) == math.inf


def test_the_noise_for_a_budget_keeps_it() -> None:
    pytest.importorskip("opacus")
    budget = {"sample_rate": 0.1, "delta": 1e-5}
    sigma = ft.transforms.noise_multiplier_for(epsilon=2.0, steps=100, **budget)
    state = make_private(noise_multiplier=sigma)
    assert 1.98 <= ft.transforms.privacy_spent(state.replace(step=100), **budget) <= 2.0
    later = make_private(make_state().replace(step=50), noise_multiplier=sigma)
    assert ft.transforms.privacy_spent(later.replace(step=150), **budget) <= 2.0


def test_the_budget_of_a_state_that_is_not_private_is_refused() -> None:
    with pytest.raises(FunctrainError, match="not trained privately"):
        ft.transforms.privacy_spent(make_state(), sample_rate=0.1, delta=1e-5)
    with pytest.raises(ValueError, match="sample_rate must be a probability"):
        ft.transforms.privacy_spent(make_private(), sample_rate=2.0, delta=1e-5)
    with pytest.raises(ValueError, match="accountant must be one of rdp, prv, gdp"):
        ft.transforms.privacy_spent(make_private(), sample_rate=0.1, delta=1e-5, accountant="x")
