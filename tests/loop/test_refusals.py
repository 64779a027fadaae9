"""What fit refuses, and in which words."""

from pathlib import Path

import pytest
import torch
from loop_helpers import make_loader, make_state, quick_fit
from torch import nn

import functrain as ft
from functrain.checkpoint import read_info
from functrain.foundation.errors import CheckpointError, DataError, NonFiniteError


def test_a_nan_stops_with_the_step_named_and_the_state_before_it_saved(tmp_path: Path) -> None:
    @ft.on("process_batch")
    def poison(event: ft.Event) -> ft.Event:
        inputs, *rest = event.batch
        return event.replace(batch=(inputs.log() if event.state.step == 8 else inputs, *rest))

    with pytest.raises(NonFiniteError, match=r"the loss is nan at step 9 \(epoch 2, batch 3\).*holds NaN.*NONFINITE"):
        quick_fit(make_state(), make_loader(), epochs=3, run_dir=tmp_path, callbacks=[poison])
    info = read_info(tmp_path / "checkpoints" / "last")
    assert (info.status, info.step) == ("NONFINITE", 8)
    skipped = quick_fit(make_state(), make_loader(), epochs=2, callbacks=[poison], on_nonfinite="skip")
    assert all(torch.isfinite(p).all() for p in skipped.state.params.values())


@pytest.mark.parametrize("compile", [False, True])
def test_labels_out_of_range_are_named(compile: bool) -> None:
    batch = (torch.randn(4, 4), torch.tensor([0, 1, 7, 2]))
    with pytest.raises(NonFiniteError, match=r"[Ll]abel 7 at position \[2\] .* 3 classes, so labels must be 0 to 2"):
        quick_fit(make_state(), [batch], epochs=1, compile=compile, backend="aot_eager" if compile else "inductor")


def test_arguments_are_checked_before_anything_is_done() -> None:
    for arguments, message in (
        ({}, "give epochs, steps, or both"),
        ({"epochs": 0}, "epochs must be a whole number, 1 or more; got 0"),
        ({"epochs": 1, "tail": "cut"}, "tail must be one of extend, short, drop; got 'cut'"),
        ({"epochs": 1, "watch": "train_los"}, "watch must be one of train_loss, train_accuracy; got 'train_los'"),
        ({"epochs": 1, "compile": True, "backend": "induktor"}, "backend must be one of"),
        ({"epochs": 1, "resume": "somewhere"}, "give run_dir too"),
    ):
        with pytest.raises(ValueError, match=message):
            quick_fit(make_state(), make_loader(), **arguments)
    with pytest.raises(TypeError, match=r"functrain\.init_state\(.*\) makes it; got Linear"):
        quick_fit(nn.Linear(1, 1), make_loader(), epochs=1)  # type: ignore[arg-type]


def test_a_run_directory_of_another_model_is_refused_and_left_alone(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    other = ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.adamw(1e-2))
    with pytest.raises(CheckpointError, match="weight"):
        quick_fit(other, make_loader(), epochs=1, run_dir=tmp_path)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_an_unwritable_run_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        CheckpointError, match=r"cannot lock the run directory .* choose a directory that can be written to"
    ):
        quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path / "file")


def test_empty_data_are_refused() -> None:
    with pytest.raises(DataError):
        quick_fit(make_state(), [], epochs=1)
    with pytest.raises(DataError):
        quick_fit(make_state(), make_loader(), eval_loader=[], epochs=1)
