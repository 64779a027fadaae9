"""Averages, paths between states, and statistics that fit them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from transform_helpers import flat, make_batches, make_state

import functrain as ft
from functrain.checkpoint import Checkpointer, read_checkpoint


def trained(seed: int, net: str = "batch norm", **options: Any) -> Any:
    state = make_state(net, **options)
    for batch in make_batches(6, 5, seed=seed):
        state, _ = ft.train_step(state, batch)
    return state


@settings(deadline=None, max_examples=15)
@given(weights=st.lists(st.floats(0.1, 5.0), min_size=3, max_size=3))
def test_an_average_is_the_weighted_mean_and_does_not_depend_on_the_order(weights: list[float]) -> None:
    states = [trained(seed) for seed in range(3)]
    found = ft.transforms.average_states(states, weights)
    expected = sum(w * flat(state.params) for w, state in zip(weights, states)) / sum(weights)
    torch.testing.assert_close(flat(found.params), expected, rtol=1e-13, atol=1e-15)
    other = ft.transforms.average_states(states[::-1], weights[::-1])
    torch.testing.assert_close(flat(found.params), flat(other.params), rtol=1e-14, atol=1e-16)


def test_an_average_is_that_of_torchs_averaged_model() -> None:
    states = [trained(seed) for seed in range(3)]
    averaged = AveragedModel(ft.to_module(states[0]), use_buffers=False)
    for state in states:
        averaged.update_parameters(ft.to_module(state))
    found = ft.transforms.average_states(states)
    for name, param in averaged.module.named_parameters():
        torch.testing.assert_close(found.params[name], param.detach(), rtol=1e-13, atol=1e-15)


def test_the_average_of_one_state_has_its_bits_and_trains_on() -> None:
    state = trained(0, ema_decay=0.5)
    found = ft.transforms.average_states([state])
    assert all(torch.equal(found.params[name], p) for name, p in state.params.items())
    assert found.params["0.weight"].data_ptr() != state.params["0.weight"].data_ptr()
    assert found.buffers["1.num_batches_tracked"] == 2
    after, _ = ft.train_step(found, make_batches(6)[0])
    assert after.step == state.step + 1


def test_the_averages_of_an_optimizer_are_what_is_averaged_and_evaluated() -> None:
    state = trained(0, "mlp", optimizer=ft.optim.schedule_free_sgd(0.5))
    found, batch = ft.transforms.average_states([state]), make_batches(9)
    assert ft.evaluate(found, batch) == ft.evaluate(state, batch)
    assert not torch.equal(flat(found.params), flat(state.params))


def test_interpolation_has_both_ends_and_is_linear() -> None:
    a, b = trained(0), trained(1)
    for t, expected in ((0.0, flat(a.params)), (1.0, flat(b.params)), (2.0, 2 * flat(b.params) - flat(a.params))):
        torch.testing.assert_close(flat(ft.transforms.interpolate(a, b, t).params), expected, rtol=1e-13, atol=1e-14)
    back = ft.transforms.interpolate(b, a, 0.3)
    torch.testing.assert_close(flat(back.params), flat(ft.transforms.interpolate(a, b, 0.7).params))


def test_recomputed_statistics_are_those_of_torchs_update_bn() -> None:
    state, batches = trained(0), make_batches(6, 6, 4, seed=7)
    found = ft.transforms.recompute_buffers(state, batches)
    module = ft.to_module(state)
    update_bn([inputs for inputs, _ in batches], module)
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(found.buffers[name], buffer, rtol=1e-13, atol=1e-15)
    assert not torch.allclose(found.buffers["1.running_mean"], state.buffers["1.running_mean"])
    assert found.params is state.params
    again = ft.transforms.recompute_buffers(found, batches)
    assert torch.equal(again.buffers["1.running_var"], found.buffers["1.running_var"])
    first = ft.transforms.recompute_buffers(state, batches, max_batches=1)
    alone = ft.transforms.recompute_buffers(state, batches[:1])
    assert torch.equal(first.buffers["1.running_mean"], alone.buffers["1.running_mean"])


def test_statistics_that_are_frozen_or_none_stay() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3).eval(), nn.Linear(3, 3))
    state = make_state(net)
    assert ft.transforms.recompute_buffers(state, make_batches(4)) is state
    assert ft.transforms.recompute_buffers(make_state("mlp"), make_batches(4)).buffers == {}


def test_averaged_weights_need_recomputed_statistics() -> None:
    a, b, batches = trained(0), trained(1), make_batches(40, seed=9)
    soup = ft.transforms.average_states([a, b])
    fitted = ft.transforms.recompute_buffers(soup, batches)
    inputs = ft.to_module(fitted)[0](batches[0][0])
    torch.testing.assert_close(fitted.buffers["1.running_mean"], inputs.detach().mean(0), rtol=1e-12, atol=1e-14)


def test_the_barrier_is_the_rise_above_the_line_between_the_ends() -> None:
    net = nn.Linear(1, 1, bias=False)
    state = make_state(net, lambda model, batch: ft.Loss((1 - model.weight.square()).square().sum(), 1.0))
    ends = [state.replace(params={"weight": torch.full((1, 1), value).double()}) for value in (-1.0, 1.0)]
    found = ft.transforms.mode_connectivity(*ends, make_batches(2), points=5)
    assert found.t == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert found.losses == pytest.approx([0.0, 0.5625, 1.0, 0.5625, 0.0])
    assert found.barrier == pytest.approx(1.0)
    same = ft.transforms.mode_connectivity(ends[0], ends[0], make_batches(2), points=3)
    assert same.barrier == 0.0


def test_the_line_is_evaluated_with_statistics_of_its_own() -> None:
    a, b, batches = trained(0), trained(1), make_batches(30, seed=9)
    found = ft.transforms.mode_connectivity(a, b, batches, points=3, statistics=batches)
    middle = ft.transforms.recompute_buffers(ft.transforms.interpolate(a, b, 0.5), batches)
    assert found.losses[1] == ft.evaluate(middle, batches)["loss"]
    assert found.losses != ft.transforms.mode_connectivity(a, b, batches, points=3).losses


def test_the_average_along_a_run_is_that_of_its_last_checkpoints(tmp_path: Path) -> None:
    state, batches = make_state("mlp"), make_batches(6, 5)
    ft.fit(state, batches, epochs=4, keep=3, run_dir=tmp_path, compile=False, progress=False)
    infos = Checkpointer(tmp_path / "checkpoints", read_only=True).infos()
    states = [read_checkpoint(info.path, state).tree for info in infos[-2:]]
    found = ft.transforms.average_along(state, tmp_path, last=2)
    expected = sum(flat(each.params) for each in states) / 2
    torch.testing.assert_close(flat(found.params), expected, rtol=1e-14, atol=1e-16)
    assert found.step == 8
    with pytest.raises(ft.errors.CheckpointError, match="has no checkpoint to average"):
        ft.transforms.average_along(state, tmp_path / "nothing")


def test_states_of_other_networks_and_wrong_weights_are_refused() -> None:
    a, other = trained(0), make_state(nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"only one of them has the parameter '1\.bias'"):
        ft.transforms.average_states([a, other])
    with pytest.raises(ValueError, match=r"'weight' is \[3, 4\] in the first, and \[2, 4\] in another"):
        ft.transforms.average_states([make_state(nn.Linear(4, 3)), make_state(nn.Linear(4, 2))])
    with pytest.raises(ValueError, match="a number for each of the 1 states"):
        ft.transforms.average_states([a], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite sum other than 0"):
        ft.transforms.average_states([a, a], [1.0, -1.0])
    with pytest.raises(ValueError, match="no state to average"):
        ft.transforms.average_states([])
    with pytest.raises(ValueError, match="points must be"):
        ft.transforms.mode_connectivity(a, a, [], points=2)
