"""A run that is over: its record, one checkpoint of each update, and nothing new when it is called again."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import EXAMPLES, assert_same_bits, make_loader, make_state, quick_fit

import functrain as ft

ENDS = {
    "epochs": {"epochs": 3},
    "steps within an epoch": {"steps": 8},
    "steps at an epoch's end": {"steps": 12},
    "early stopping": {"epochs": 9, "early_stopping": ft.optim.early_stopping(patience=1, min_delta=10.0)},
    "the best state": {"epochs": 9, "early_stopping": ft.optim.early_stopping(1, min_delta=10.0, restore_best=True)},
}


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its size and the time it was written."""
    paths = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("end", ENDS)
def test_a_finished_run_that_is_called_again_changes_nothing(end: str, donate: bool, tmp_path: Path) -> None:
    if donate and end != "epochs":
        pytest.skip("one end is enough")
    how = {"compile": donate, "backend": "eager"}
    options = {"run_dir": tmp_path, "eval_loader": make_loader(EXAMPLES), "tensorboard": True, **ENDS[end], **how}
    first = quick_fit(make_state(), make_loader(), **options)
    before = contents(tmp_path)
    for _ in range(2):
        again = quick_fit(make_state(), make_loader(), **options)
        assert_same_bits(again.state, first.state)
        assert (again.history, again.stopped_by) == (first.history, first.stopped_by)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("known_length", [True, False])
@pytest.mark.parametrize("evaluates", [True, False])
@pytest.mark.parametrize("end", [{"epochs": 2}, {"steps": 9}, {"steps": 12}])
def test_each_update_is_saved_once(end: dict[str, int], evaluates: bool, known_length: bool, tmp_path: Path) -> None:
    class Unknown:
        def __iter__(self) -> Any:
            return iter(make_loader())

    loader = make_loader() if known_length else Unknown()
    options = {"save_every": 3, "keep": 99, "run_dir": tmp_path, **end}  # six updates an epoch
    quick_fit(make_state(), loader, eval_loader=make_loader(EXAMPLES) if evaluates else None, **options)
    infos = ft.Checkpointer(tmp_path / "checkpoints", read_only=True).infos()
    last = end.get("steps", 12)
    assert [info.step for info in infos] == list(range(3, last + 1, 3))
    assert [info.step for info in infos if info.metric is not None] == sorted({6, last})


def test_a_state_that_a_callback_changes_at_the_end_is_saved(tmp_path: Path) -> None:
    @ft.on("after_loop")
    def halve(event: ft.Event) -> ft.TrainState:
        return event.state.replace(params={name: p / 2 for name, p in event.state.params.items()})

    result = quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path, callbacks=[halve])
    restored = ft.Checkpointer(tmp_path / "checkpoints", read_only=True).restore(make_state()).tree
    assert_same_bits(restored, result.state)


def test_an_endless_stream_without_evaluation_has_a_record_at_its_end() -> None:
    batch = torch.ones(4, 4), torch.zeros(4, dtype=torch.long)
    result = quick_fit(make_state(), itertools.repeat(batch), steps=5)
    (record,) = result.history
    assert (record["kind"], record["step"], record["samples"]) == ("final", 5, 20)
    losses: list[float] = []
    watch = ft.on("after_step")(lambda event: losses.append(float(event.metrics["loss"])))
    quick_fit(make_state(), itertools.repeat(batch), steps=5, callbacks=[watch])
    assert record["train_loss"] == pytest.approx(sum(losses) / 5, rel=1e-6)


def spoil(checkpoints: Path) -> None:
    """Leave a finished run's checkpoints as a kill between a save and what follows it does."""
    newest, oldest = ft.Checkpointer(checkpoints, read_only=True).names()[-1], "step-00000006"
    for link in ("last", "best"):
        (checkpoints / link).unlink()
        (checkpoints / link).symlink_to(oldest)
    (checkpoints / oldest).rename(checkpoints / f".trash-{oldest}-00000000")
    assert newest != oldest


def test_a_finished_run_whose_last_save_was_killed_is_put_in_order(tmp_path: Path) -> None:
    options = {"run_dir": tmp_path, "epochs": 3, "watch": "train_loss", "watch_mode": "max"}
    first = quick_fit(make_state(), make_loader(), **options)
    checkpoints = tmp_path / "checkpoints"
    spoil(checkpoints)
    keeper = ft.Checkpointer(checkpoints, read_only=True, mode="max")
    assert keeper.locate(tmp_path).name == "step-00000018"  # whatever the link says
    again = quick_fit(make_state(), make_loader(), **options)
    assert_same_bits(again.state, first.state)
    assert os.readlink(checkpoints / "last") == "step-00000018"
    best = max(keeper.infos(), key=lambda info: info.metric or 0.0)
    assert os.readlink(checkpoints / "best") == best.name
    assert not list(checkpoints.glob(".*"))


def test_the_links_are_right_before_a_checkpoint_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from functrain.checkpoint import files

    deleted, delete = [], files.delete

    def watched(path: Path) -> None:
        newest = ft.Checkpointer(path.parent, read_only=True).names()[-1]
        assert os.readlink(path.parent / "last") == newest
        assert os.readlink(path.parent / "best") != path.name
        deleted.append(path.name)
        delete(path)

    monkeypatch.setattr(files, "delete", watched)
    quick_fit(make_state(), make_loader(), run_dir=tmp_path, epochs=4, keep=1, keep_best=1)
    assert deleted
