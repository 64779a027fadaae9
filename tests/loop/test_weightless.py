"""A window whose weights sum to 0 is left out in every mode: no parameter moves, no rule counts it, no run ends."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.checkpoint import read_info
from functrain.foundation.errors import DataError, NonFiniteError
from functrain.loop import skips

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(8, 3, generator=GENERATOR)
GOOD, OTHER = (INPUTS, torch.tensor([0, 1] * 4)), (INPUTS + 1, torch.tensor([1, 1, 0, 0] * 2))
IGNORED = (INPUTS, torch.full((8,), -100))
FIT = {"compile": False, "progress": False, "epochs": 1}


def model_with_own_loss(model: Any, batch: Any) -> ft.Loss:
    """As a model that returns its mean loss is used: of no label the mean is 0 / 0, and so is its gradient."""
    inputs, targets = batch
    count = (targets != -100).sum()
    return ft.Loss(F.cross_entropy(model(inputs), targets) * count, count)


def make_state(objective: Any = ft.classification(), **options: Any) -> ft.TrainState:  # noqa: B008 - it is immutable
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return ft.init_state(model, objective, ft.optim.adam(0.1), **options)


def without(objective: str) -> tuple[Any, Any]:
    """An objective, and a batch of weight 0 to it."""
    nan = torch.full((8, 3), float("nan"))
    return {
        "ignore_index": (ft.classification(), IGNORED),
        "class weight 0": (ft.classification(class_weights=(1.0, 0.0)), (INPUTS, torch.ones(8, dtype=torch.long))),
        "example weight 0": (ft.classification(), (*GOOD, torch.zeros(8))),
        "NaN of weight 0": (ft.classification(), (nan, GOOD[1], torch.zeros(8))),
        "NaN loss of weight 0": (model_with_own_loss, IGNORED),
    }[objective]


KINDS = ("ignore_index", "class weight 0", "example weight 0", "NaN of weight 0", "NaN loss of weight 0")
MODES: dict[str, dict[str, Any]] = {
    "eager": {},
    "skip": {"on_nonfinite": "skip", "max_consecutive_skips": 1},
    "in parts": {"micro_batch": 3},
    "compiled": {"compile": True, "backend": "aot_eager", "donate": False},
    "donated, several a call": {"compile": True, "backend": "aot_eager", "steps_per_call": 4},
}
CASES = [(kind, mode) for mode in MODES for kind in (KINDS if "compile" not in MODES[mode] else KINDS[::4])]


def assert_same(left: ft.FitResult, right: ft.FitResult) -> None:
    for field in ("params", "buffers", "opt_state", "loss_scale", "epoch_totals"):
        assert not ft.diff_states(getattr(left.state, field), getattr(right.state, field)), field
    assert left.state.counts.skipped_in_a_row == 0
    assert left.state.counts.applied == right.state.counts.applied
    assert left.history[-1]["train_loss"] == right.history[-1]["train_loss"]


@pytest.mark.parametrize(("kind", "mode"), CASES)
def test_a_run_is_the_same_with_and_without_a_window_of_weight_0(kind: str, mode: str) -> None:
    objective, none = without(kind)
    weighted = kind in ("example weight 0", "NaN of weight 0")
    good, other = ((*batch, torch.ones(8)) if weighted else batch for batch in (GOOD, OTHER))
    with_, without_ = (
        ft.fit(make_state(objective), data, **{**FIT, **MODES[mode]})
        for data in ([good, none, none, other], [good, other])
    )
    assert (with_.state.step, with_.stopped_by) == (4, "epochs")
    assert_same(with_, without_)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_accumulation_window_of_weight_0_is_left_out_and_a_part_of_one_adds_nothing(kind: str) -> None:
    objective, none = without(kind)
    weighted = kind in ("example weight 0", "NaN of weight 0")
    good, other = ((*batch, torch.ones(8)) if weighted else batch for batch in (GOOD, OTHER))
    state = make_state(objective, accumulate=2)
    with_, without_ = (
        ft.fit(state, data, **FIT) for data in ([good, other, none, none, good, good], [good, other, good, good])
    )
    assert_same(with_, without_)
    accumulated, _ = ft.train_step(ft.train_step(state, good)[0], none)
    alone, metrics = ft.train_step(state, good, end_window=True)
    assert not ft.diff_states(accumulated.params, alone.params)
    assert metrics["weight_sum"] == alone.epoch_totals[1, 0] == accumulated.epoch_totals[1, 0] > 0
    assert ft.train_step(ft.train_step(state, none)[0], good)[0].params["0.weight"].isfinite().all()


def test_a_loss_scale_is_neither_grown_nor_backed_off_by_a_window_of_weight_0() -> None:
    for kind in KINDS:
        objective, none = without(kind)
        state = make_state(objective, precision="fp16", loss_scale=ft.LossScaling(growth_interval=1))
        after, metrics = ft.train_step(state, none)
        assert metrics["skipped"] == 1
        assert metrics["weight_sum"] == 0
        assert not ft.diff_states(after.loss_scale, state.loss_scale)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_device_that_is_read_late_ends_a_run_by_a_failure_alone(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skips, "reading_is_free", lambda _device: False)
    options = {**FIT, "compile": compiled, "backend": "aot_eager", "log_every": 3}
    assert ft.fit(make_state(), [GOOD, IGNORED, GOOD, GOOD, IGNORED], **options).state.step == 5
    bad = (torch.full((8, 3), float("nan")), GOOD[1])
    with pytest.raises(NonFiniteError, match="not finite at step 2"):
        ft.fit(make_state(), [IGNORED, bad, IGNORED, GOOD], **options)


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_weights_without_a_mean_are_refused_as_such(weight: float) -> None:
    with pytest.raises(NonFiniteError, match=r"the weights sum to (-8.0|nan) at step 1 .*greater than 0"):
        ft.fit(make_state(), [(*GOOD, torch.full((8,), weight))], **FIT)


def test_an_epoch_in_which_nothing_counts_asks_no_rule_and_is_no_best_checkpoint(tmp_path: Path) -> None:
    rules = {"plateau": ft.optim.plateau(patience=1), "early_stopping": ft.optim.early_stopping(patience=2)}
    result = ft.fit(make_state(), [IGNORED], **{**FIT, "epochs": 5}, run_dir=tmp_path, **rules)
    assert (result.stopped_by, result.state.step, len(result.history)) == ("epochs", 5, 5)
    assert all(record["train_loss"] != record["train_loss"] for record in result.history)
    assert result.state.stopper.evaluations == result.state.plateau.num_bad_epochs == 0
    assert [read_info(path).metric for path in (tmp_path / "checkpoints").glob("step-*")] == [None] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_leaves_out_what_does_not_count(kind: str) -> None:
    objective, none = without(kind)
    state = make_state(objective)
    good = (*GOOD, torch.ones(8)) if len(none) == 3 else GOOD
    means = ft.evaluate(state, [good, none], compile=False)
    assert means["loss"] == ft.evaluate(state, [good], compile=False)["loss"]
    result = ft.fit(state, [good], eval_loader=[none], **FIT, early_stopping=ft.optim.early_stopping(patience=1))
    assert result.history[-1]["eval_loss"] != result.history[-1]["eval_loss"]
    assert (result.stopped_by, result.state.stopper.evaluations) == ("epochs", 0)


def test_the_finder_of_learning_rates_looks_past_windows_of_weight_0() -> None:
    found = ft.find_lr(make_state(), [GOOD, IGNORED], steps=20, compile=False)
    assert len(found.lr) == len(found.loss) > 5
    assert ft.find_nonfinite(make_state(model_with_own_loss), [GOOD, IGNORED], steps=4) is None
    with pytest.raises(DataError, match="no label of any batch counts"):
        ft.find_lr(make_state(), [IGNORED], steps=20, compile=False)
