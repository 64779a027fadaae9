"""What the tests of the loop share: a small state, a loader of few examples, quiet runs."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft

EXAMPLES = 22


def make_state(**options: Any) -> ft.TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = options.pop("optimizer", ft.optim.adamw(1e-2))
    return ft.init_state(model, ft.classification(), optimizer, **options)


def make_loader(batch_size: int = 4, **options: Any) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(EXAMPLES, 4, generator=generator)
    targets = torch.randint(0, 3, (EXAMPLES,), generator=generator)
    return DataLoader(TensorDataset(inputs, targets), batch_size=batch_size, shuffle=True, **options)


def quick_fit(state: ft.TrainState, loader: Any, **options: Any) -> ft.FitResult:
    return ft.fit(state, loader, **{"compile": False, "progress": False, **options})


def assert_same_bits(left: ft.TrainState, right: ft.TrainState) -> None:
    assert ft.diff_states(left, right) == []


def stop_after(steps: int) -> Any:
    @ft.on("after_step")
    def callback(event: ft.Event) -> ft.Stop | None:
        return ft.Stop() if event.state.step == steps else None

    return callback
