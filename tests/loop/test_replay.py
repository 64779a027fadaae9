"""replay: what was trained is trained again, and a wrong bit is found."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.checkpoint import Checkpointer
from functrain.foundation.errors import CheckpointError


def make_state(**options: Any) -> ft.TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    return ft.init_state(model, ft.classification(), ft.optim.adamw(1e-2), **options)


def make_loader() -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(22, 4, generator=generator)
    return DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), batch_size=4, shuffle=True)


def train(run: Path, state: ft.TrainState, **options: Any) -> ft.FitResult:
    settings = {"epochs": 3, "save_every": 2, "keep": 99, "compile": False, "progress": False, **options}
    return ft.fit(state, make_loader(), run_dir=run, **settings)


@pytest.mark.parametrize("tail", ["extend", "short", "drop"])
def test_every_checkpoint_of_a_run_is_confirmed_from_its_first(tail: str, tmp_path: Path) -> None:
    state = make_state(accumulate=4, ema_decay=0.9, precision="bf16")
    train(tmp_path, state, tail=tail)
    names = Checkpointer(tmp_path / "checkpoints", read_only=True).names()
    first = tmp_path / "checkpoints" / names[0]
    report = ft.replay(state, make_loader(), first, steps=99, tail=tail, compile=False)
    assert report.ok
    assert [comparison.name for comparison in report.compared] == names[1:]
    report = ft.replay(state, make_loader(), first, tail=tail, compile=False)
    assert (report.ok, len(report.compared), report.start) == (True, 1, names[0])


@pytest.mark.parametrize("donate", [True, False])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_run_is_confirmed_whether_it_donated_or_not(backend: str, donate: bool, tmp_path: Path) -> None:
    state = make_state(ema_decay=0.9, clip_norm=0.1)
    train(tmp_path, state, compile=True, backend=backend, donate=donate, deterministic=True, epochs=2)
    first = tmp_path / "checkpoints" / "step-00000002"
    report = ft.replay(state, make_loader(), first, steps=99, backend=backend)
    assert report.ok
    assert len(report.compared) > 5
    # The run computed with deterministic algorithms, this process does not: said, though on a CPU it shows in no bit.
    assert [note.partition(" was ")[0] for note in report.environment] == ["deterministic"]


def test_an_interrupted_snapshot_within_a_window_is_confirmed(tmp_path: Path) -> None:
    state = make_state(accumulate=3)

    @ft.on("process_batch")
    def stop(event: ft.Event) -> ft.Stop | None:
        return ft.Stop() if (event.state.epoch, event.state.batch_idx) == (1, 4) else None

    result = train(tmp_path, state, callbacks=[stop])
    assert result.state.micro_step == 2
    report = ft.replay(state, make_loader(), tmp_path / "checkpoints" / "step-00000002", steps=2, compile=False)
    assert report.ok
    assert report.compared[-1].name == "step-00000003.m2"


def test_other_settings_or_data_are_found_and_named(tmp_path: Path) -> None:
    state = make_state()
    train(tmp_path, state)
    checkpoint = tmp_path / "checkpoints" / "step-00000002"
    other = make_state(clip_norm=1e-3)
    report = ft.replay(other, make_loader(), checkpoint, steps=6, compile=False)
    assert not report.ok
    assert [comparison.name for comparison in report.compared] == ["step-00000004"]
    found = {difference.path: difference for difference in report.compared[0].differences}
    assert found["params/0.weight"].ulps
    shorter = DataLoader(make_loader().dataset, batch_size=8)
    assert not ft.replay(state, shorter, checkpoint, compile=False).ok


def test_checkpoints_that_are_never_met_are_named(tmp_path: Path) -> None:
    state = make_state()
    train(tmp_path, state)
    loader = DataLoader(make_loader().dataset, batch_size=11)  # 2 batches an epoch instead of 6
    report = ft.replay(state, loader, tmp_path / "checkpoints" / "step-00000002", compile=False)
    assert (report.ok, report.missed) == (False, ("step-00000004",))


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    state = make_state()
    train(tmp_path, state)
    folder = tmp_path / "checkpoints"
    with pytest.raises(CheckpointError, match=r"no checkpoint follows step-00000018.*nothing to compare"):
        ft.replay(state, make_loader(), folder / "last", compile=False)
    with pytest.raises(CheckpointError, match=r"within 1 steps; the next is step-00000004: replay 2 steps"):
        ft.replay(state, make_loader(), folder / "step-00000002", steps=1, compile=False)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        ft.replay(state, make_loader(), folder / "step-00000002", steps=0, compile=False)
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        ft.replay(state, make_loader(), folder / "nope", compile=False)


def test_what_an_evaluation_decided_is_taken_from_the_checkpoint(tmp_path: Path) -> None:
    state = make_state()
    rules = {
        "plateau": ft.optim.plateau(patience=0, factor=0.5, threshold=10.0, threshold_mode="abs"),
        "early_stopping": ft.optim.early_stopping(patience=9),
    }
    result = train(tmp_path, state, **rules)
    assert {record["epoch"] for record in result.history} == {1, 2, 3}
    report = ft.replay(state, make_loader(), tmp_path / "checkpoints" / "step-00000002", steps=99, compile=False)
    assert report.ok
    assert report.compared[-1].step == 18
