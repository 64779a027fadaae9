"""compile="auto": chosen once, from counts; recorded; kept for good."""

import bisect
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import assert_same_bits, make_loader, make_state, stop_after
from torch import nn

import functrain as ft
from functrain.compiler import runner_for, work
from functrain.compiler.work import Estimate, estimate, forward_work
from functrain.distributed import World
from functrain.loop.batches import Feed
from functrain.loop.choosing import Choice
from functrain.loop.resume.metadata import metadata_of
from functrain.loop.settings import Settings

QUIET: dict[str, Any] = {"progress": False}
ALONE = World()
# As `fit` calls it: pytest imports a module anew to collect its doctests.
choose = sys.modules["functrain.loop.fit"].choose


def choice(state: ft.TrainState, loader: Any, world: World = ALONE, **settings: Any) -> Choice:
    feed = Feed(ft.data.as_stream(loader, 0), state.recipe.objective, state.device, world)
    return choose(Settings(**settings), state, feed, world)


def recorded(run: Path) -> str:
    return metadata_of(ft.checkpoint.Checkpointer(run / "checkpoints", read_only=True).infos()[-1]).compiled


@pytest.fixture
def cheap_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled steps run their traced graph: whether they are compiled is the point here."""

    def runner(compile: bool, **options: Any) -> Any:
        return runner_for(compile, **options | {"backend": "eager"})

    monkeypatch.setattr(sys.modules["functrain.loop.fit"], "runner_for", runner)


@pytest.fixture
def more_than_15_updates_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choose.__globals__, "estimate", lambda *_: Estimate(saves=1.0, takes=15.0))


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"optimizer": ft.optim.sgd(0.1)}])
def test_more_updates_never_turn_compiled_into_eager(options: Any) -> None:
    state, loader = make_state(**options), make_loader()
    found = [choice(state, loader, steps=steps).compile for steps in (1, 9, 10, 100, 10_000, 100_000, 10**7)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (False, True)
    first = bisect.bisect_left(range(10**6), True, key=lambda steps: choice(state, loader, steps=steps).compile)
    assert choice(state, loader, epochs=-(-first // 2)).compile  # an epoch has 6 batches, 2 updates of 3
    assert not choice(state.replace(step=1), loader, steps=first).compile  # fewer are left to do


def test_only_counts_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, loader = make_state(), make_loader()
    expected = choice(state, loader, steps=1000)
    ft.compile(ft.train_step, backend="eager")(state, next(iter(loader)))
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path / "empty"))
    for clock in ("time", "perf_counter", "monotonic", "process_time"):
        monkeypatch.setattr(f"time.{clock}", lambda: pytest.fail("a clock was read"))
    assert choice(state, loader, steps=1000) == expected
    said = r"steps are not compiled: compiling would save about \d\.\d s in 1,000 updates and take about \d\d s"
    assert re.fullmatch(said, expected.why)
    assert not (tmp_path / "empty").exists()


def test_counting_changes_nothing() -> None:
    state, loader = make_state(), make_loader()
    before = torch.get_rng_state(), ft.train_step(state, next(iter(loader)))[0]
    torch.set_rng_state(before[0])
    choice(state, loader, steps=1000)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert_same_bits(ft.train_step(state, next(iter(loader)))[0], before[1])


class Counting(nn.Module):
    """What it gives depends on how often it was called, and on Python's random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(4, 3), 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(inputs) * (self.calls + random.random())


def test_a_model_that_counts_its_calls_does_not_notice_that_it_was_counted() -> None:
    states = []
    for compile in ("auto", False):
        torch.manual_seed(0)
        random.seed(0)
        state = ft.init_state(Counting(), ft.classification(), ft.optim.sgd(0.1))
        states.append(ft.fit(state, make_loader(), steps=20, compile=compile, watch="train_accuracy", **QUIET).state)
    assert_same_bits(*states)


def test_the_work_of_a_batch_is_that_of_its_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    state = ft.init_state(
        nn.Sequential(nn.Linear(4, 2048), nn.ReLU(), nn.Linear(2048, 3)), ft.classification(), ft.optim.sgd(0.1)
    )
    seen: list[work.Work] = []
    monkeypatch.setitem(
        choose.__globals__, "estimate", lambda state, work, passes: seen.append(work) or estimate(state, work, passes)
    )
    batches = [[(torch.zeros(size, 4), torch.zeros(size, dtype=torch.int64))] for size in (64, 128)]
    small, large = (choice(state, batch, steps=20) and seen[-1] for batch in batches)
    assert small.operations == large.operations == forward_work(state, batches[0][0]).operations
    assert large.elements == 2 * small.elements
    assert small.elements == pytest.approx(forward_work(state, batches[0][0]).elements, rel=0.1)
    choice(state, batches[1], World(0, 1), steps=20, micro_batch=64)
    assert seen[-1] == small


@pytest.mark.parametrize(
    ("loader", "settings", "why"),
    [
        ((batch for batch in ()), {"epochs": 1}, "the number of updates is not known"),
        ((batch for batch in ()), {"steps": 100}, "their work cannot be counted before the data are read"),
        (make_loader(num_workers=1), {"epochs": 5}, "their work cannot be counted before the data are read"),
        (
            [(torch.zeros(8, 5), torch.zeros(8, dtype=torch.int64))],
            {"epochs": 20},
            "cannot be counted (ModuleInputError)",
        ),
    ],
    ids=["no length", "an iterator", "workers", "a model that fails"],
)
def test_what_cannot_be_counted_is_compiled(loader: Any, settings: Any, why: str) -> None:
    compiled, said = choice(make_state(), loader, **settings)
    assert compiled
    assert said.startswith("steps are compiled: ")
    assert why in said


def test_few_updates_are_not_even_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(choose.__globals__, "glimpse", lambda *_: pytest.fail("the data were read"))
    said = choice(make_state(), iter([]), steps=9)
    assert said == (False, "steps are not compiled: 9 updates are too few to gain by it")
    assert choice(make_state(), make_loader(), epochs=1).why.startswith("steps are not compiled: 6 updates are")


def test_a_batch_without_rows_counts_as_a_whole() -> None:
    def objective(model: Any, batch: Any) -> ft.Loss:
        return ft.Loss(sum(model(each).square().sum() for each in batch["parts"]), 2)

    state = ft.init_state(nn.Linear(3, 1), objective, ft.optim.sgd(0.1))
    found = choice(state, [{"parts": [torch.ones(2, 3), torch.ones(5, 3)]}], steps=100)
    assert not found.compile
    assert "in 100 updates" in found.why


@pytest.mark.parametrize("value", [True, False])
def test_a_given_value_is_obeyed_without_a_word(value: bool) -> None:
    for steps in (1, 10**7):
        assert choice(make_state(), make_loader(), steps=steps, compile=value) == (value, "")


@pytest.mark.parametrize("asked", [{"backend": "eager"}, {"mode": "max-autotune"}, {"engine": "torch"}])
def test_a_setting_of_the_compiler_asks_for_it(asked: Any, tmp_path: Path) -> None:
    compiled, why = choice(make_state(), make_loader(), steps=1, **asked)
    assert compiled
    assert why == f"steps are compiled, as {next(f'{name}={value!r}' for name, value in asked.items())} asks for it"
    assert not choice(make_state(), make_loader(), steps=1, compile=False, **asked).compile


def test_a_wrong_setting_of_the_compiler_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="backend must be one of"):
        ft.fit(make_state(), make_loader(), steps=1, backend="x", run_dir=tmp_path / "run", **QUIET)
    with pytest.raises(TypeError, match="compile must be True, False or 'auto'; got 'maybe'"):
        ft.fit(make_state(), make_loader(), steps=1, compile="maybe", **QUIET)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("more_than_15_updates_pay", "cheap_compiler")
@pytest.mark.parametrize(("epochs", "way"), [(2, "eager"), (4, "inductor/default")])
def test_an_interrupted_run_keeps_its_choice_bit_for_bit(tmp_path: Path, epochs: int, way: str) -> None:
    """12 or 24 updates. After the interruption fewer than 15 are left; then the run is made longer."""
    compiled = way != "eager"
    interrupted = ft.fit(
        make_state(), make_loader(), epochs=epochs, run_dir=tmp_path, callbacks=[stop_after(11)], save_every=3, **QUIET
    )
    assert (interrupted.state.step, recorded(tmp_path)) == (11, way)
    for longer in (epochs, 6):
        resumed = ft.fit(make_state(), make_loader(), epochs=longer, run_dir=tmp_path, strict_resume=True, **QUIET)
        whole = ft.fit(make_state(), make_loader(), epochs=longer, compile=compiled, **QUIET)
        assert recorded(tmp_path) == way
        assert_same_bits(resumed.state, whole.state)


@pytest.mark.usefixtures("more_than_15_updates_pay", "cheap_compiler")
def test_the_choice_is_that_of_compile_true_or_false() -> None:
    for epochs, compiled in ((2, False), (4, True)):
        found, expected = (
            ft.fit(make_state(), make_loader(), epochs=epochs, compile=compile, **QUIET)
            for compile in ("auto", compiled)
        )
        assert_same_bits(found.state, expected.state)


@pytest.mark.usefixtures("more_than_15_updates_pay", "cheap_compiler")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_of_an_earlier_release_stays_as_it_was_recorded(tmp_path: Path, compiled: bool) -> None:
    ft.fit(make_state(), make_loader(), epochs=1, compile=compiled, run_dir=tmp_path, **QUIET)
    for epochs in (2, 6):
        ft.fit(make_state(), make_loader(), epochs=epochs, run_dir=tmp_path, strict_resume=True, **QUIET)
        assert recorded(tmp_path) == ("inductor/default" if compiled else "eager")
    checkpoint = tmp_path / "checkpoints" / "last"
    said = choice(make_state(), make_loader(), epochs=9, run_dir=tmp_path / "new", resume=str(checkpoint))
    assert said == (compiled, f"steps are {'' if compiled else 'not '}compiled, as this run began")
    assert choice(make_state(), make_loader(), epochs=9, run_dir=tmp_path, resume="never").compile


@pytest.mark.usefixtures("cheap_compiler")
def test_a_value_given_at_a_resume_wins_and_is_said(tmp_path: Path) -> None:
    ft.fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path, **QUIET)
    options: dict[str, Any] = {"epochs": 2, "compile": True, "run_dir": tmp_path, **QUIET}
    with pytest.raises(ft.ResumeRefusedError, match="compile was eager and is inductor/default"):
        ft.fit(make_state(), make_loader(), strict_resume=True, **options)
    with pytest.warns(ft.ResumeWarning, match="compile was eager and is inductor/default"):
        ft.fit(make_state(), make_loader(), **options)
    ft.fit(make_state(), make_loader(), epochs=3, run_dir=tmp_path, strict_resume=True, **QUIET)
    assert recorded(tmp_path) == "inductor/default"


@pytest.mark.usefixtures("cheap_compiler")
def test_a_replay_computes_as_the_run_chose(tmp_path: Path) -> None:
    ft.fit(make_state(), make_loader(), epochs=2, run_dir=tmp_path, **QUIET)
    assert ft.replay(make_state(), make_loader(), tmp_path / "checkpoints" / "step-00000006").ok


def test_all_ranks_compile_if_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setitem(choose.__globals__, "any_rank", lambda flag, _: asked.append(flag) or True)
    said = choice(make_state(), make_loader(), World(0, 2), steps=20)
    assert (asked, said) == ([False], (True, "steps are compiled: another rank counts more work"))


def test_the_choice_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    state = ft.fit(make_state(), make_loader(), steps=2).state
    assert capfd.readouterr().err.splitlines()[0] == "steps are not compiled: 2 updates are too few to gain by it"
    ft.fit(state, make_loader(), steps=2)
    ft.fit(state, make_loader(), steps=3, compile=False)
    assert "compiled" not in capfd.readouterr().err
