"""replay: what was trained is trained again, and a wrong bit is found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.checkpoint import Checkpointer
from functrain.diagnostics.reproduction import as_recorded
from functrain.foundation.errors import CheckpointError
from functrain.foundation.tf32 import tf32_flags


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
    report = ft.replay(state, make_loader(), first, steps=99)  # how it was compiled stands in the checkpoint
    assert report.ok
    assert [comparison.name[-2:] for comparison in report.compared] == ["04", "06", "08", "10", "12"]
    assert report.environment == ()


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


def flags() -> dict[str, Any]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "products": torch.get_float32_matmul_precision(),
    }


class Watched(TensorDataset):
    """Notes under which settings it is read."""

    seen: list[dict[str, Any]]

    def __getitem__(self, index: int) -> Any:
        self.seen.append(flags())
        return super().__getitem__(index)


@pytest.fixture
def other_flags() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(before)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_replay_computes_as_the_run_did_and_leaves_the_process_as_it_was(
    deterministic: bool, tmp_path: Path, other_flags: None
) -> None:
    state, threads = make_state(accumulate=4), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    torch.set_float32_matmul_precision("medium")
    data = Watched(*make_loader().dataset.tensors)
    data.seen = []
    loader = DataLoader(data, batch_size=4, shuffle=True)
    options = {"epochs": 2, "save_every": 2, "keep": 99, "compile": False, "progress": False, "tail": "short"}
    ft.fit(state, loader, run_dir=tmp_path, deterministic=deterministic, **options)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(not deterministic)
    before = flags()
    data.seen.clear()
    report = ft.replay(state, loader, tmp_path / "checkpoints" / "step-00000002", steps=99)
    assert report.ok
    assert report.environment == ()
    # The number of threads is a thread's own, and data are read in another; it stands in the report.
    assert {(seen["deterministic"], seen["products"]) for seen in data.seen} == {(deterministic, "medium")}
    assert flags() == before


def test_what_the_run_had_can_be_overruled_and_is_then_named(tmp_path: Path) -> None:
    state = make_state()
    train(tmp_path, state)
    report = ft.replay(
        state, make_loader(), tmp_path / "checkpoints" / "step-00000002", compile=True, backend="aot_eager"
    )
    assert any(note.startswith("compile was eager and is aot_eager/default") for note in report.environment)


@pytest.mark.parametrize("products", [True, False])
def test_tf32_is_as_it_was_on_a_cuda_device(products: bool) -> None:
    recorded, before = {"tf32": {"products": products, "convolutions": not products}}, tf32_flags()
    with as_recorded(recorded, torch.device("cuda")):
        assert tf32_flags() == recorded["tf32"]
    assert tf32_flags() == before
    with as_recorded(recorded, torch.device("cpu")):
        assert tf32_flags() == before


def test_an_error_within_puts_everything_back() -> None:
    before = flags()
    environment = {"deterministic": True, "threads": before["threads"] + 1, "float32_matmul_precision": "high"}
    with pytest.raises(ZeroDivisionError), as_recorded(environment, torch.device("cpu")):
        _ = 1 / (flags() == before)
    assert flags() == before
