"""The optimizer's state on the CPU: the same updates, and what travels between the devices."""

import pytest
import torch
from elsewhere import CPU, ELSEWHERE, Elsewhere, Transfers
from torch import nn

import functrain as ft
from functrain import optim
from functrain.foundation.trees import leaves_with_paths, tensors, tree_map
from functrain.step.execution import Runner
from functrain.step.to_module import to_evaluate


class Plain(Runner):
    """Runs a core as it is: the tests' device has no random generators."""

    def __call__(self, core, state, batch, *, key, device):
        return core.fn(state, batch)


def made(optimizer=optim.adamw, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))
    options = {"ema_decay": 0.9, "clip_norm": 0.1, "accumulate": 2} | options
    return ft.init_state(model, ft.classification(), optimizer(0.01), **options)


def batches():
    return [(torch.randn(5, 6), torch.randint(0, 3, (5,))) for _ in range(6)]


def trained(state, data, **options):
    for batch in data:
        state, metrics = ft.train_step(state, batch, **options)
    return state, {name: value.item() for name, value in metrics.items()}


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
@pytest.mark.parametrize("optimizer", [optim.adamw, optim.muon])
def test_an_offloaded_state_trains_with_the_same_bits(optimizer, strategy):
    data = batches()
    ways = [
        ft.shard(made(optimizer), strategy=strategy, reduction="exact", offload_optimizer=to) for to in (None, "cpu")
    ]
    (one, seen), (other, offloaded) = (trained(state, data) for state in ways)
    assert (ft.digest(one), seen) == (ft.digest(other), offloaded)


@pytest.mark.parametrize("optimizer", [optim.adamw, optim.schedule_free_adamw])
def test_the_optimizers_state_stays_on_the_cpu_and_gradients_and_parameters_travel(optimizer):
    data = batches()
    expected, seen = trained(ft.shard(made(optimizer), offload_optimizer="cpu"), data)
    with Transfers() as transfers:
        state = ft.shard(tree_map(there, made(optimizer)), offload_optimizer="cpu")
        at_rest(state)
        transfers.sent.update({"to the CPU": 0, "from the CPU": 0})
        state, metrics = trained(state, [tree_map(there, batch) for batch in data], run=Plain())
        at_rest(state)
        params, small = (sum(leaf.numel() for leaf in tensors(each)) for each in (state.params, state.buffers))
        updates = len(data) // 2
        small = updates * (2 * small + 2 * state.epoch_totals.numel() + 16)  # the rest: counters, flags, norms
        assert 2 * params * updates <= transfers.sent["to the CPU"] < 2 * params * updates + small
        assert params * updates <= transfers.sent["from the CPU"] < params * updates + small
        for ema in (False, True):
            assert {leaf.device for leaf in tensors(to_evaluate(state, ema=ema))} == {ELSEWHERE}
        whole = ft.unshard(state)
        assert {leaf.device for leaf in tensors(whole)} == {ELSEWHERE}
        assert ft.digest(tree_map(back, whole)) == ft.digest(expected)
    assert metrics == seen


def test_where_the_optimizers_state_can_go_is_told():
    with pytest.raises(ValueError, match="offload_optimizer must be one of cpu, or None; got 'disk'"):
        ft.shard(made(), offload_optimizer="disk")


def there(leaf):
    return Elsewhere(leaf) if isinstance(leaf, torch.Tensor) else leaf


def back(leaf):
    return leaf.held if isinstance(leaf, Elsewhere) else leaf


def at_rest(state):
    for path, leaf in leaves_with_paths(state):
        if isinstance(leaf, torch.Tensor):
            assert leaf.device == (CPU if path.startswith(("opt_state", "ema")) else ELSEWHERE), path
