"""find_nonfinite: step, micro-batch, module and leaf of the first value that is not finite."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import make_loader, make_state, quick_fit
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.foundation.errors import NonFiniteError


class Root(nn.Module):
    """Square root: NaN below 0, an infinite derivative at 0."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.sqrt()


def network() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), Root(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
    return model


def batches(*values: float) -> list[Any]:
    return [(torch.full((4, 2), value), torch.zeros(4, 1)) for value in values]


def hunt(data: list[Any], **options: Any) -> Any:
    state = ft.init_state(network(), ft.regression(), ft.optim.sgd(1e-6), **options)
    return ft.find_nonfinite(state, data, steps=8)


def test_the_module_whose_output_it_is_comes_first() -> None:
    found = hunt(batches(1.0, 2.0, -1.0))
    assert (found.step, found.batch, found.stage, found.module) == (3, 3, "forward", "1")
    assert str(found) == "forward at step 3 (epoch 1, batch 3, micro-batch 1), module '1'"


def test_a_gradient_is_found_where_the_loss_is_finite() -> None:
    found = hunt(batches(1.0, 1.0, 1.0, 0.0), accumulate=3)
    assert (found.step, found.micro_batch, found.stage) == (2, 1, "backward")
    assert (found.module, found.leaf) == ("0", "0.weight")


def test_data_and_state_are_named() -> None:
    found = hunt(batches(1.0, float("nan")))
    assert (found.stage, found.leaf, found.step) == ("batch", "0", 2)
    state = ft.init_state(network(), ft.regression(), ft.optim.sgd(1e-6))
    state = state.replace(params={**state.params, "2.bias": torch.tensor([float("inf")])})
    found = ft.find_nonfinite(state, batches(1.0))
    assert (found.stage, found.leaf) == ("state", "params/2.bias")


def test_where_all_is_finite_nothing_is_found() -> None:
    assert hunt(batches(1.0, 2.0)) is None
    with pytest.raises(ValueError, match="steps must be a whole number"):
        ft.find_nonfinite(make_state(), make_loader(), steps=0)


def test_a_runs_nonfinite_snapshot_leads_to_it(tmp_path: Path) -> None:
    state = ft.init_state(network(), ft.regression(), ft.optim.sgd(1e-6))
    inputs, targets = (torch.cat(parts) for parts in zip(*batches(1.0, 2.0, -1.0, 3.0)))
    data = DataLoader(TensorDataset(inputs, targets), batch_size=4)
    with pytest.raises(NonFiniteError):
        quick_fit(state, data, epochs=1, run_dir=tmp_path)
    found = ft.find_nonfinite(state, data, checkpoint=tmp_path / "checkpoints" / "last", steps=1)
    assert (found.step, found.stage, found.module) == (3, "forward", "1")
