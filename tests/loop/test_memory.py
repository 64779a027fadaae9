"""micro_batch: the same updates in less memory, whatever the memory is."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loop_helpers import make_loader
from torch import nn

import functrain as ft
from functrain.distributed import World
from functrain.foundation import trees
from functrain.foundation.errors import DonatedStateError, OutOfMemoryError
from functrain.loop.memory import InParts, check_micro_batch, is_out_of_memory, split_batch
from functrain.step.execution import Runner, eager
from functrain.step.state import consume

CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


class Hungry(nn.Module):
    """Runs out of memory with more than `limit` examples at a time; counts how often."""

    failures = 0
    limit = 2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) > Hungry.limit:
            Hungry.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.body(x)


@pytest.fixture(autouse=True)
def _counts():
    Hungry.failures, Hungry.limit = 0, 2


def hungry_state(**options: Any) -> ft.TrainState:
    return ft.init_state(Hungry(), ft.classification(), ft.optim.adamw(1e-2), **{"precision": "fp64", **options})


def train(state: ft.TrainState, **options: Any) -> ft.FitResult:
    return ft.fit(state, make_loader(), **{"epochs": 2, "compile": False, "progress": False, **options})


def assert_close(left: ft.TrainState, right: ft.TrainState) -> None:
    for (path, a), b in zip(trees.leaves_with_paths(left), trees.leaves(right), strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13, msg=lambda text, path=path: f"{path}: {text}")
        else:
            assert a == b, path


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.booleans())
def test_the_update_of_a_batch_in_parts_is_the_update_of_the_batch(
    length: int, rows: int, accumulate: int, weighted: bool
) -> None:
    Hungry.limit = 99
    state = hungry_state(accumulate=accumulate, clip_norm=0.5, ema_decay=0.9)
    in_parts = InParts(eager, rows, state.recipe.objective)
    generator = torch.Generator().manual_seed(length)
    left = right = state
    for _ in range(accumulate):
        batch: Any = (torch.randn(length, 4, generator=generator), torch.arange(length) % 3)
        batch = (*batch, torch.rand(length, generator=generator)) if weighted else batch
        left, one = ft.train_step(left, batch)
        right, other = ft.train_step(right, batch, run=in_parts)
    assert_close(left, right)
    assert one.keys() == other.keys()
    torch.testing.assert_close(one["loss"], other["loss"], rtol=1e-12, atol=0)


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_parts_are_few_alike_and_hold_every_example_once(length: int, rows: int, pads: bool) -> None:
    parts = split_batch((torch.arange(length), torch.arange(length)), rows, pads=pads)
    assert len(parts) == -(-length // rows)
    assert all(len(part[0]) <= rows for part in parts)
    if pads:
        assert len({len(part[0]) for part in parts}) == 1
    kept = [part[0] if len(part) == 2 else part[0][part[2] > 0] for part in parts]
    assert torch.cat(kept).tolist() == list(range(length))


def test_what_is_not_per_example_goes_to_every_part() -> None:
    scale = torch.tensor([2.0, 3.0])
    parts = split_batch({"inputs": torch.zeros(5, 2), "targets": (torch.zeros(5), "name", scale)}, 3, pads=False)
    assert [len(part["inputs"]) for part in parts] == [3, 2]
    assert all(part["targets"][1:] == ("name", scale) for part in parts)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("how", [{"compile": False}, {"compile": True, "backend": "eager"}])
def test_after_out_of_memory_the_same_update_is_done_in_halves_for_the_rest_of_the_run(
    accumulate: int, how: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(hungry_state(accumulate=accumulate), micro_batch="auto", **how)
    assert 1 <= Hungry.failures <= 2 * accumulate  # in the first steps only (a compiled one is traced twice)
    fixed = train(hungry_state(accumulate=accumulate), micro_batch=2, **how)
    assert ft.diff_states(result.state, fixed.state) == []
    assert result.history == fixed.history
    Hungry.limit = 99
    assert_close(train(hungry_state(accumulate=accumulate), **how).state, result.state)


def test_what_was_found_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    train(hungry_state(), micro_batch="auto", progress=None)
    assert "out of memory with 4 examples at a time: going on with 2, with the same updates" in capsys.readouterr().err


class Overwrites(Runner):
    """A donating runner that dies halfway, when part of the state is overwritten."""

    donate = True

    def __init__(self, limit: int, dies_at: int = 0) -> None:
        self.limit, self.dies_at, self.calls, self.deaths = limit, dies_at, 0, 0

    def __call__(self, core: Any, state: Any, batch: Any, *, key: Any, device: Any) -> Any:
        self.calls += 1
        if len(batch[0]) > self.limit or self.calls == self.dies_at:
            self.deaths += 1
            written = trees.tensors(state if core.name == "update" else state.accumulator)
            consume(state)
            for tensor in written:
                tensor.fill_(1)
            raise RuntimeError(CPU_MESSAGE)
        result = eager(core, state, batch, key=key, device=device)
        consume(state)
        return result


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_donated_state_that_a_failing_step_has_overwritten_is_as_before_when_the_step_is_done_again(
    accumulate: int,
) -> None:
    Hungry.limit = 99
    batch = (torch.randn(8, 4), torch.arange(8) % 3)
    donated = trees.copy_tensors(hungry_state(accumulate=accumulate))
    expected = hungry_state(accumulate=accumulate)
    dying = Overwrites(limit=3)
    auto = InParts(dying, "auto", donated.recipe.objective)
    fixed = InParts(eager, 2, donated.recipe.objective)
    for _ in range(4):
        donated, _ = ft.train_step(donated, batch, run=auto)
        expected, _ = ft.train_step(expected, batch, run=fixed)
    assert (auto.rows, dying.deaths) == (2, 2)
    assert ft.diff_states(donated, expected) == []


def test_a_donated_state_is_consumed_when_its_batch_is_taken_in_parts() -> None:
    Hungry.limit = 99
    state = trees.copy_tensors(hungry_state())
    ft.train_step(state, (torch.randn(8, 4), torch.arange(8) % 3), run=InParts(Overwrites(8), 4, ft.classification()))
    with pytest.raises(DonatedStateError):
        _ = state.params


def test_a_donating_step_that_had_fitted_before_and_fails_says_how_to_go_on() -> None:
    Hungry.limit = 99
    state = trees.copy_tensors(hungry_state())
    batch = (torch.randn(4, 4), torch.arange(4) % 3)
    run = InParts(Overwrites(limit=4, dies_at=2), "auto", state.recipe.objective)
    state, _ = ft.train_step(state, batch, run=run)
    with pytest.raises(OutOfMemoryError, match="donate=False"):
        ft.train_step(state, batch, run=run)


def test_the_number_found_is_in_the_checkpoint_and_a_resume_begins_with_it(tmp_path: Path) -> None:
    whole = train(hungry_state(), micro_batch="auto", epochs=3, run_dir=tmp_path / "whole")
    train(hungry_state(), micro_batch="auto", epochs=1, run_dir=tmp_path / "cut")
    failures = Hungry.failures
    resumed = train(hungry_state(), micro_batch="auto", epochs=3, run_dir=tmp_path / "cut")
    assert Hungry.failures == failures
    assert ft.diff_states(whole.state, resumed.state) == []
    report = ft.replay(
        hungry_state(), make_loader(), tmp_path / "cut/checkpoints/step-00000006", steps=12, compile=False
    )
    assert report.ok
    Hungry.limit = 99
    with pytest.warns(ft.ResumeWarning, match="micro_batch was 2 and is 3"):
        train(hungry_state(), micro_batch=3, epochs=4, run_dir=tmp_path / "cut")


def test_a_single_example_that_does_not_fit_is_an_error_that_says_so() -> None:
    Hungry.limit = 0
    with pytest.raises(OutOfMemoryError, match="a single example does not fit"):
        train(hungry_state(), micro_batch="auto")


def test_without_micro_batch_the_error_says_what_to_set() -> None:
    with pytest.raises(OutOfMemoryError, match=r"batches of 4 examples.*micro_batch='auto'.*accumulate"):
        train(hungry_state())


def test_other_errors_are_not_taken_for_memory() -> None:
    def broken(model: Any, batch: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        train(
            hungry_state().replace(recipe=ft.init_state(Hungry(), broken, ft.optim.sgd(0.1)).recipe), micro_batch="auto"
        )
    assert not is_out_of_memory(RuntimeError("mat1 and mat2"))
    wrapped = ValueError("while compiling")
    wrapped.__cause__ = RuntimeError(CPU_MESSAGE)
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "half"])
def test_what_is_no_micro_batch_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="micro_batch must be a number of examples"):
        train(hungry_state(), micro_batch=value)


def test_auto_is_for_one_process() -> None:
    check_micro_batch(8, World(0, 2))
    with pytest.raises(ValueError, match="one process"):
        check_micro_batch("auto", World(0, 2))


LIMITED = """
import resource, sys, torch, functrain as ft
from functrain.foundation.errors import OutOfMemoryError
from torch import nn
torch.set_num_threads(1)

class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.width = nn.Linear(2, 3), width

    def forward(self, x):
        return torch.tanh(self.inner(x)[:, None] * torch.ones(self.width, 1, dtype=x.dtype)).mean(1)

def train(width, **options):
    state = ft.init_state(Wide(width), ft.classification(), ft.optim.sgd(0.1), precision="fp64")
    data = [(torch.ones(16, 2), torch.arange(16) % 3)]
    return ft.fit(state, data, steps=2, compile=False, progress=None, **options).state

train(10)
expected = train(100_000).params["inner.weight"]
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000, resource.RLIM_INFINITY))
found = train(100_000, micro_batch="auto").params["inner.weight"]
torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
for width, options in ((100_000, {}), (50_000_000, {"micro_batch": "auto"})):
    try:
        train(width, **options)
    except OutOfMemoryError as error:
        print(error, file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a limit of address space")
def test_a_real_limit_of_memory_is_met_and_the_update_is_the_same(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "out of memory with 16 examples at a time: going on with 8" in done.stderr
    assert "training ran out of memory" in done.stderr
    assert "a single example does not fit" in done.stderr
