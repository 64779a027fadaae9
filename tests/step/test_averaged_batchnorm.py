"""BatchNorm under averaged parameters: its statistics are the training point's until they are taken anew."""

import pytest
import torch
from torch import nn

import functrain as ft


def trained(**options):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    state = ft.init_state(model, ft.regression(), precision="fp64", **options)
    for _ in range(20):
        state, _ = ft.train_step(state, (torch.randn(8, 3), torch.randn(8, 1)))
    return state


@pytest.mark.parametrize(
    ("options", "ema"),
    [
        ({"optimizer": ft.optim.schedule_free_adamw(0.1)}, False),
        ({"optimizer": ft.optim.adamw(0.1), "ema_decay": 0.9}, True),
    ],
    ids=["schedule-free", "moving average"],
)
def test_update_bn_takes_the_statistics_of_the_averages_and_they_go_back_into_a_state(options, ema):
    state = trained(**options)
    data = [(torch.randn(16, 3, dtype=torch.float64), torch.zeros(16, 1)) for _ in range(4)]
    module = ft.to_module(state, ema=ema)
    assert torch.equal(module[1].running_mean, state.buffers["1.running_mean"])  # the training point's
    torch.optim.swa_utils.update_bn(data, module)
    hidden = torch.cat([module[0](inputs) for inputs, _ in data])
    torch.testing.assert_close(module[1].running_mean, hidden.mean(0), rtol=1e-12, atol=1e-12)
    to_evaluate = state.replace(buffers={name: b.detach().clone() for name, b in module.named_buffers()})
    batch = (data[0][0], torch.zeros(16, 1, dtype=torch.float64))
    expected = module.eval()(batch[0]).square().mean().item()
    assert ft.eval_step(to_evaluate, batch, ema=ema).means()["loss"].item() == pytest.approx(expected, rel=1e-12)
