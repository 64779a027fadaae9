"""What a run leaves: logs, checkpoints, and how it is resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import EXAMPLES, assert_same_bits, make_loader, make_state, quick_fit, stop_after
from torch import nn

import functrain as ft
from functrain.checkpoint import Checkpointer, read_info
from functrain.loop.resume import saving


def test_the_logs_hold_each_step_once_after_a_resume(tmp_path: Path) -> None:
    options = {"epochs": 3, "log_every": 2, "eval_loader": make_loader(EXAMPLES)}
    whole = quick_fit(make_state(), make_loader(), run_dir=tmp_path / "whole", **options)
    quick_fit(make_state(), make_loader(), run_dir=tmp_path / "part", callbacks=[stop_after(9)], **options)
    log = tmp_path / "part" / "metrics.jsonl"
    log.write_text(log.read_text() + '{"kind": "step", "step": 99}\n{"kind": "st')  # after the checkpoint, a kill
    part = quick_fit(make_state(), make_loader(), run_dir=tmp_path / "part", **options)
    assert part.history == whole.history
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (tmp_path / "part" / name).read_text() == (tmp_path / "whole" / name).read_text()
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "step"] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert {"train_loss", "train_accuracy", "eval_loss", "eval_accuracy"} <= records[-1].keys()


def test_epoch_records_average_over_examples_not_batches() -> None:
    batches = [(torch.full((n, 1), float(n)), torch.zeros(n, 1)) for n in (1, 3)]
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    state = ft.init_state(model, ft.regression(), ft.optim.sgd(0.0))
    record = quick_fit(state, batches, eval_loader=batches, epochs=1).history[0]
    assert record["train_loss"] == record["eval_loss"] == (1 * 1 + 3 * 9) / 4


def test_best_and_last_are_kept_and_loadable_by_name(tmp_path: Path) -> None:
    result = quick_fit(
        make_state(), make_loader(), eval_loader=make_loader(), epochs=5, run_dir=tmp_path, keep=1, watch="eval_loss"
    )
    losses = [record["eval_loss"] for record in result.history]
    assert read_info(tmp_path / "checkpoints" / "best").metric == min(losses)
    assert read_info(tmp_path / "checkpoints" / "last").step == result.state.step
    with ft.Checkpointer(tmp_path / "checkpoints") as checkpointer:
        restored = checkpointer.restore(make_state(), "last").tree
    assert_same_bits(restored, result.state)


def test_a_save_by_the_clock_comes_so_long_after_the_last_one_whatever_that_was_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(saving, "monotonic", lambda: now[0])

    @ft.on("process_batch")
    def a_minute(event: ft.Event) -> None:
        now[0] += 60.0

    options = {"epochs": 3, "keep": 99, "callbacks": [a_minute], "run_dir": tmp_path}  # six updates an epoch
    quick_fit(make_state(), make_loader(), save_every_minutes=4, **options)
    saved = [info.step for info in Checkpointer(tmp_path / "checkpoints", read_only=True).infos()]
    assert saved == [4, 6, 10, 12, 16, 18]


@pytest.mark.parametrize("wrong", [0, -1.0, True, "5", float("nan")])
def test_minutes_must_be_a_positive_number(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save_every_minutes must be a number of minutes, greater than 0; got"):
        quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path, save_every_minutes=wrong)


def test_keep_best_keeps_the_best_few(tmp_path: Path) -> None:
    result = quick_fit(make_state(), make_loader(), epochs=6, run_dir=tmp_path, keep=1, keep_best=3)
    losses = {record["step"]: record["train_loss"] for record in result.history}
    best = sorted(losses, key=lambda step: losses[step])[:3]
    kept = sorted({*best, result.state.step})
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("step-*")) == [f"step-{step:08}" for step in kept]


def test_resume_never_moves_the_earlier_run_aside(tmp_path: Path) -> None:
    first = quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path)
    log = (tmp_path / "metrics.jsonl").read_text()
    second = quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path, resume="never")
    assert_same_bits(first.state, second.state)
    assert (tmp_path / "previous-1" / "metrics.jsonl").read_text() == log
    assert (tmp_path / "previous-1" / "checkpoints" / "last").exists()


def test_going_back_to_an_older_checkpoint_makes_it_the_newest(tmp_path: Path) -> None:
    options = {"epochs": 3, "run_dir": tmp_path, "keep": 5}
    whole = quick_fit(make_state(), make_loader(), **options)
    older = str(tmp_path / "checkpoints" / "step-00000006")
    again = quick_fit(make_state(), make_loader(), resume=older, callbacks=[stop_after(7)], **options)
    assert again.state.step == 7
    assert read_info(tmp_path / "checkpoints" / "last").step == 7
    assert_same_bits(quick_fit(make_state(), make_loader(), **options).state, whole.state)
    elsewhere = quick_fit(make_state(), make_loader(), resume=older, epochs=3, run_dir=tmp_path / "elsewhere")
    assert_same_bits(elsewhere.state, whole.state)
    assert elsewhere.history == whole.history


def test_a_changed_learning_rate_is_used_and_said(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), steps=2, run_dir=tmp_path)
    with pytest.warns(ft.ResumeWarning, match=r"was 0.01 and is 0.001: training goes on with the new one"):
        result = quick_fit(
            make_state(optimizer=ft.optim.adamw(1e-3)), make_loader(), steps=3, run_dir=tmp_path, log_every=1
        )
    assert ft.optim.learning_rate(result.state.opt_state) == 1e-3


def test_a_changed_environment_is_named(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), steps=2, run_dir=tmp_path)
    with pytest.warns(ft.ResumeWarning, match="not bit-for-bit because compile was eager and is aot_eager/default"):
        quick_fit(make_state(), make_loader(), steps=3, run_dir=tmp_path, compile=True, backend="aot_eager")


def test_a_loader_with_a_state_of_its_own_is_asked_for_it(tmp_path: Path) -> None:
    class Counting:
        """Gives a different batch each time, from a position of its own."""

        def __init__(self) -> None:
            self.position = 0

        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Any:
            while self.position < 5:
                self.position += 1
                yield torch.full((2, 4), float(self.position)), torch.zeros(2).long()
            self.position = 0

        def state_dict(self) -> dict[str, Any]:
            return {"position": self.position, "generator": torch.tensor([1, 2], dtype=torch.uint8)}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            assert state["generator"].dtype == torch.uint8
            self.position = state["position"]

    whole = quick_fit(make_state(), Counting(), epochs=2).state
    quick_fit(make_state(), Counting(), epochs=2, run_dir=tmp_path, callbacks=[stop_after(3)])
    assert_same_bits(quick_fit(make_state(), Counting(), epochs=2, run_dir=tmp_path).state, whole)
