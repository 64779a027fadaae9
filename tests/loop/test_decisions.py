"""Plateau and early stopping in a run: asked after each evaluation, remembered by the state, kept by a resume."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.checkpoint import Checkpointer
from functrain.optim import early_stopping, learning_rate, plateau

RULES = {"plateau": plateau(factor=0.5, patience=1, threshold=0.0, cooldown=1), "early_stopping": early_stopping(4)}


def make_state(**options: Any) -> ft.TrainState:
    torch.manual_seed(0)
    optimizer = options.pop("optimizer", ft.optim.sgd(1.0, momentum=0.9))  # far too large a rate: it will not improve
    return ft.init_state(nn.Linear(3, 2), ft.classification(), optimizer, **options)


def loader(seed: int) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 3, generator=generator)
    targets = torch.randint(0, 2, (12,), generator=generator)
    return DataLoader(TensorDataset(inputs, targets), batch_size=4, shuffle=True)


def quick_fit(state: ft.TrainState, **options: Any) -> ft.FitResult:
    settings = {"compile": False, "progress": False, "eval_loader": loader(1), "epochs": 30, **options}
    return ft.fit(state, loader(0), **settings)


def rates(result: ft.FitResult, optimizer_lr: float, rule: Any) -> list[float]:
    """The learning rate after each epoch, by the rule alone."""
    memory, rate, found = rule.init(), optimizer_lr, []
    for record in result.history:
        memory, decision = rule.update(memory, record["eval_loss"])
        rate *= rule.factor if decision.reduce else 1.0
        found.append(rate)
    return found


@pytest.mark.parametrize("compile_with", [None, "aot_eager"])
def test_the_runs_decisions_are_those_of_the_rules_over_its_records(compile_with: str | None) -> None:
    seen = []

    @ft.on("before_epoch")
    def look(event: ft.Event) -> None:
        seen.append(learning_rate(event.state.opt_state).item())

    options = {} if compile_with is None else {"compile": True, "backend": compile_with}
    result = quick_fit(make_state(), callbacks=[look], **RULES, **options)
    expected = rates(result, 1.0, RULES["plateau"])
    assert seen == [1.0, *expected[:-1]]
    assert min(expected) < 1.0
    memory, stops = RULES["early_stopping"].init(), []
    for record in result.history:
        memory, decision = RULES["early_stopping"].update(memory, record["eval_loss"])
        stops.append(decision.stop)
    assert stops == [False] * (len(stops) - 1) + [True]
    assert result.stopped_by == "early_stopping"
    assert result.state.stopper == memory


def test_a_reduction_compiles_nothing_anew() -> None:
    step = ft.compile(ft.train_step, backend="aot_eager", donate=True)
    batch = next(iter(loader(0)))
    state, _ = step(make_state(), batch)
    state = state.replace(opt_state=RULES["plateau"].apply(state.opt_state))
    state, metrics = step(state, batch)
    assert metrics["lr"].item() == 0.5
    assert dict(step.runner.compilations) == {"update": 1}


@pytest.mark.parametrize("steps", [4, 10, 15, 19])
def test_an_interrupted_and_resumed_run_decides_as_an_uninterrupted_one(steps: int, tmp_path: Path) -> None:
    whole = quick_fit(make_state(), **RULES)
    quick_fit(make_state(), run_dir=tmp_path, steps=steps, **RULES)
    resumed = quick_fit(make_state(), run_dir=tmp_path, **RULES)
    assert ft.diff_states(resumed.state, whole.state) == []
    assert resumed.stopped_by == whole.stopped_by == "early_stopping"
    assert quick_fit(make_state(), run_dir=tmp_path, **RULES).stopped_by == "early_stopping"  # it stays so


def test_restore_best_gives_the_state_of_the_best_evaluation(tmp_path: Path) -> None:
    rule = early_stopping(2, restore_best=True)
    result = quick_fit(make_state(), run_dir=tmp_path, early_stopping=rule)
    best = min(record["eval_loss"] for record in result.history)
    assert ft.evaluate(result.state, loader(1))["loss"] == pytest.approx(best, rel=1e-6)
    assert result.history[-1]["eval_loss"] > best
    again = quick_fit(make_state(), run_dir=tmp_path, early_stopping=rule)
    assert ft.diff_states(again.state, result.state) == []
    last = Checkpointer(tmp_path / "checkpoints", read_only=True).restore(make_state(), "last")
    assert last.info.step > result.state.step


def test_more_can_be_better_and_a_rule_can_join_a_run_later(tmp_path: Path) -> None:
    options = {"run_dir": tmp_path, "watch": "eval_accuracy", "watch_mode": "max"}
    quick_fit(make_state(), epochs=1, **options)
    result = quick_fit(make_state(), epochs=9, early_stopping=early_stopping(1, mode="max"), **options)
    found = [record["eval_accuracy"] for record in result.history[1:]]
    assert result.state.stopper.best == max(found)
    assert not math.isinf(result.state.stopper.best)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"early_stopping": early_stopping(mode="max")}, ValueError, "has mode=.max., but watch_mode is .min.:"),
        ({"plateau": 3}, TypeError, r"plateau must be a rule made by functrain\.optim\.plateau"),
        ({"early_stopping": early_stopping(restore_best=True)}, ValueError, "give fit a run_dir"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        quick_fit(make_state(), **options)


def test_a_plateau_needs_a_learning_rate_to_reduce() -> None:
    with pytest.raises(ValueError, match="no learning rate that could be reduced"):
        quick_fit(make_state(optimizer=ft.optim.rprop()), plateau=plateau())
