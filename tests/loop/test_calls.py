"""steps_per_call: several updates in one call are the updates one by one, whatever ends the call."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import assert_same_bits, make_loader, make_state
from torch import nn

import functrain as ft
from functrain.checkpoint import read_info
from functrain.compiler import CompilingRunner
from functrain.distributed import World
from functrain.foundation.errors import NonFiniteError
from functrain.foundation.trees import copy_tensors
from functrain.loop.settings import Settings
from functrain.loop.updates_per_call import UpdatesPerCall
from functrain.step.finish import named_metrics
from functrain.step.updates import Updates

STEPS = 6  # of an epoch of 22 examples in batches of 4, the last of them ragged


def quick_fit(state: ft.TrainState, loader: Any, **options: Any) -> ft.FitResult:
    return ft.fit(state, loader, **{"compile": True, "backend": "eager", "progress": False, "log_every": 1, **options})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Updates of each series that ends while the fixture is in use."""
    lengths: list[int] = []

    class Counted(Updates):
        def __init__(self, state: Any, run: Any) -> None:
            super().__init__(state, run)
            self._begin = self.step

        def end(self) -> ft.TrainState:
            lengths.append(self.step - self._begin)
            return super().end()

    monkeypatch.setattr("functrain.loop.stepping.Updates", Counted)
    return lengths


def run_files(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in ("metrics.jsonl", "metrics.csv")}


SETTINGS: dict[str, dict[str, Any]] = {
    "dropout": {},
    "average, schedule and clipping": {
        "ema_decay": 0.9,
        "optimizer": ft.optim.adamw(ft.schedules.cosine(1e-2, 18)),
        "clip_norm": 0.5,
    },
    "statistics": {"statistics": "module"},
    "fp16": {"precision": "fp16"},
}


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_bits_records_history_and_checkpoints_are_those_of_single_updates(
    options: Any, tmp_path: Path, calls: list[int]
) -> None:
    results = []
    for k in (1, 4):
        fit = {"epochs": 2, "save_every": 5, "keep": 99, "steps_per_call": k, "run_dir": tmp_path / str(k)}
        results.append(quick_fit(make_state(**options), make_loader(), **fit))
    one, four = results
    assert_same_bits(one.state, four.state)
    assert one.history == four.history
    assert run_files(tmp_path / "1") == run_files(tmp_path / "4")
    names = [sorted(path.name for path in (tmp_path / k / "checkpoints").iterdir()) for k in ("1", "4")]
    assert names[0] == names[1]
    # The first update, which tells the metrics' names, is alone; then up to 4, the 5th, the epoch's end ...
    assert calls == [4, 4, 2] if options.get("precision") != "fp16" else sum(calls) == 10


def test_one_program_serves_single_updates_and_calls_of_any_length(bits: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [(torch.randn(4, 4, generator=generator), torch.tensor([0, 1, 2, 0])) for _ in range(6)]
    for donate in (True, False):
        runner = CompilingRunner(donate=donate, backend="aot_eager")
        single = ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.adamw(0.1))
        several = copy_tensors(single)
        for rows in ([0], [1, 2], [3, 4, 5]):
            updates = Updates(several, runner)
            together = [bits(named_metrics(updates(batches[i]))) for i in rows]
            several = updates.end()
            for i, metrics in zip(rows, together):
                single, alone = ft.train_step(single, batches[i], run=runner)
                assert metrics == bits(alone)
            assert bits(single) == bits(several)
        assert runner.compilations == {"update": 1}


@pytest.mark.slow
def test_with_inductor_too_the_bits_are_those_of_single_updates() -> None:
    results = [quick_fit(make_state(), make_loader(), epochs=2, backend="inductor", steps_per_call=k) for k in (1, 4)]
    assert_same_bits(results[0].state, results[1].state)


def test_a_run_stopped_anywhere_goes_on_with_another_number_to_the_same_bits(tmp_path: Path) -> None:
    whole = quick_fit(make_state(), make_loader(), epochs=3)
    for k, steps in ((2, 4), (5, 9), (64, 13)):
        run = tmp_path / f"{steps}"
        part = quick_fit(make_state(), make_loader(), steps=steps, run_dir=run, steps_per_call=k)
        assert part.state.step == steps
        rest = quick_fit(make_state(), make_loader(), epochs=3, run_dir=run, steps_per_call=1)
        assert_same_bits(rest.state, whole.state)
        assert rest.history[-1] == whole.history[-1]


class Batches:
    """Batches in order, with something that happens when one of them is drawn; of known length or not."""

    def __init__(self, events: dict[int, Any] | None = None, bad: tuple[int, ...] = (), count: int = 12) -> None:
        generator = torch.Generator().manual_seed(3)
        self.batches = [
            (torch.randn(4, 4, generator=generator), torch.randint(0, 3, (4,), generator=generator))
            for _ in range(count)
        ]
        for number in bad:
            self.batches[number - 1][0][0, 0] = float("nan")
        self.events, self.drawn = events or {}, 0

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.batches, 1):
            self.drawn = number
            self.events.get(number, lambda: None)()
            yield batch


def test_a_signal_ends_the_call_after_the_update_at_hand(tmp_path: Path, calls: list[int]) -> None:
    data = Batches({7: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    with pytest.raises(ft.Interrupted) as caught:
        quick_fit(make_state(), data, epochs=1, steps_per_call=8, run_dir=tmp_path)
    assert caught.value.code == 128 + signal.SIGTERM
    info = read_info(tmp_path / "checkpoints" / "last")
    assert (info.status, info.step, info.metadata["batch_idx"], data.drawn) == ("INTERRUPTED", 7, 7, 7)
    assert calls == [6]
    with pytest.warns(UserWarning, match="read"):
        resumed = quick_fit(make_state(), Batches(), epochs=1, steps_per_call=3, run_dir=tmp_path)
    assert_same_bits(resumed.state, quick_fit(make_state(), Batches(), epochs=1).state)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 12 + 1


def test_a_refused_update_ends_the_call_and_the_run_with_the_state_before_it(tmp_path: Path) -> None:
    messages, states = [], []
    for k in (1, 8):
        with pytest.raises(NonFiniteError) as caught:
            quick_fit(make_state(), Batches(bad=(6,)), epochs=1, steps_per_call=k, run_dir=tmp_path / str(k))
        messages.append(str(caught.value))
        info = read_info(tmp_path / str(k) / "checkpoints" / "last")
        states.append((info.status, info.step, info.metadata["batch_idx"], info.metadata["samples_seen"]))
    assert messages[0] == messages[1]
    assert "at step 6 (epoch 1, batch 6)" in messages[1]
    assert states == [("NONFINITE", 5, 5, 20)] * 2
    assert run_files(tmp_path / "1") == run_files(tmp_path / "8")


def test_refused_updates_that_are_skipped_are_counted_one_by_one() -> None:
    bad = (3, 5, 6, 7, 10)
    results = [
        quick_fit(make_state(), Batches(bad=bad), epochs=1, on_nonfinite="skip", steps_per_call=k) for k in (1, 4)
    ]
    assert_same_bits(results[0].state, results[1].state)
    with pytest.raises(NonFiniteError, match=r"3 updates in a row were refused.* at step 7 "):
        quick_fit(
            make_state(), Batches(bad=bad), epochs=1, on_nonfinite="skip", max_consecutive_skips=3, steps_per_call=8
        )


def test_an_error_of_the_loader_within_a_call_is_raised() -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        quick_fit(make_state(), Batches({9: fail}), epochs=1, steps_per_call=8)


def test_an_epoch_of_unknown_length_ends_a_call(calls: list[int]) -> None:
    result = quick_fit(make_state(), Batches(), epochs=2, steps_per_call=8)
    assert (result.state.step, result.state.epoch) == (24, 2)
    assert calls == [8, 3, 8, 4]
    assert_same_bits(result.state, quick_fit(make_state(), Batches(), epochs=2).state)


@pytest.mark.parametrize("scope", ["before_step", "process_batch", "after_step"])
def test_a_callback_of_a_steps_scope_sees_each_state(scope: str, calls: list[int]) -> None:
    seen = []

    @ft.on(scope)
    def look(event: ft.Event) -> None:
        seen.append((event.state.step, event.state.params["0.bias"].sum().item()))

    quick_fit(make_state(), make_loader(), epochs=1, steps_per_call=4, callbacks=[look])
    assert calls == []
    assert len({step for step, _ in seen}) == len({value for _, value in seen}) == STEPS


@pytest.mark.parametrize(
    ("state_options", "fit_options"),
    [({"accumulate": 2}, {}), ({}, {"compile": False}), ({}, {"deterministic": True})],
    ids=["accumulation", "not compiled", "deterministic"],
)
def test_what_cannot_be_in_a_call_goes_one_by_one(state_options: Any, fit_options: Any, calls: list[int]) -> None:
    four, one = (
        quick_fit(make_state(**state_options), make_loader(), epochs=2, steps_per_call=k, **fit_options) for k in (4, 1)
    )
    assert calls == []
    assert_same_bits(four.state, one.state)


def test_by_default_quick_updates_come_in_calls_and_slow_ones_one_by_one(
    calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for seconds in (0.01, 1.0):  # a question and the next: the call between them
        monkeypatch.setattr("functrain.loop.updates_per_call.perf_counter", itertools.count(0.0, seconds).__next__)
        calls.clear()
        results.append(quick_fit(make_state(), make_loader(), epochs=3))
        assert calls == ([2, 2, 6, 6] if seconds < 0.05 else [])
    assert_same_bits(results[0].state, results[1].state)
    assert results[0].history == results[1].history


def test_by_default_ranks_go_step_by_step() -> None:
    state = make_state()
    settings = Settings(epochs=1, log_every=1, max_consecutive_skips=None)
    for size in (1, 2):
        per_call = UpdatesPerCall(settings, World(0, size), one_by_one=False)
        per_call.next(state, None)
        assert per_call.next(state, None) == (2 if size == 1 else 1)


def test_a_number_of_steps_that_is_none_is_refused() -> None:
    for wrong in (0, -1, 2.0, True, "many"):
        with pytest.raises(ValueError, match="steps_per_call must be a whole number, 1 or more, or 'auto'"):
            quick_fit(make_state(), make_loader(), epochs=1, steps_per_call=wrong)


def test_a_series_of_updates_refuses_accumulation() -> None:
    with pytest.raises(ValueError, match=r"needs a state with accumulate=1.*has accumulate=2"):
        Updates(make_state(accumulate=2), CompilingRunner(backend="eager"))
