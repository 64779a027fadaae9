"""The state after any update of a script's run is rebuilt bit for bit."""

import shutil

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.checkpoint import CheckpointWarning

PER_EPOCH = 5


def _data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(4, 3, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(PER_EPOCH)]


def _state(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
    return ft.init_state(model, ft.regression(), ft.optim.adam(0.1), seed=1, **options)


def _rules():
    stops = ft.optim.early_stopping(patience=3, restore_best=True)
    return {"plateau": ft.optim.plateau(patience=0, factor=0.5), "early_stopping": stops, "watch": "eval_loss"}


@pytest.fixture
def states(tmp_path):
    """Train, and keep the digest of the state after each update, and after each epoch's end."""
    found = {}

    def train(**options):
        @ft.on("before_loop", "after_step", "before_epoch")
        def look(event):
            found[event.state.step] = ft.digest(event.state)

        state = _state(accumulate=options.pop("accumulate", 1))
        result = ft.fit(state, _data(), run_dir=tmp_path / "run", callbacks=[look], progress=False, **options)
        found[result.history[-1]["step"]] = result.history[-1]["digest"]
        return tmp_path / "run", found

    return train


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("compile", "accumulate"), [(False, 1), (False, 2), (True, 1)])
def test_every_state_of_a_run_is_rebuilt(states, compile, accumulate, stride):
    options = {"compile": compile, "backend": "aot_eager"}
    rules = {"eval_loader": _data(1), **_rules()}
    run, expected = states(epochs=5, keep=1, save_every=4, accumulate=accumulate, **rules, **options)
    fresh = _state(accumulate=accumulate)
    steps = sorted(expected)
    for step in {*steps[::stride], steps[-1]}:
        assert ft.digest(ft.state_at(fresh, _data(), run, step, **rules)) == expected[step], step


def test_the_nearest_good_checkpoint_is_the_start_and_the_state_is_saved(states, tmp_path):
    run, expected = states(epochs=3, keep=9, save_every=2, compile=False)
    fresh, out = _state(), tmp_path / "new" / "out"
    damaged = run / "checkpoints" / "step-00000006"
    victim = max((p for p in (damaged / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(b"\0" * victim.stat().st_size)
    before = sorted(run.rglob("*"))
    with pytest.warns(CheckpointWarning, match="step-00000006 .*an earlier one is used"):
        state = ft.state_at(fresh, _data(), run, 7, out=out)
    assert ft.digest(state) == expected[7] == ft.digest(ft.Checkpointer(out.parent).restore(fresh, out).tree)
    assert (sorted(run.rglob("*")), list(out.parent.iterdir())) == (before, [out])
    with pytest.raises(ft.errors.CheckpointError, match="exists: choose another directory"):
        ft.state_at(fresh, _data(), run, 7, out=out)


def test_a_step_that_the_run_has_not_reached_is_refused(states, tmp_path):
    run, _ = states(epochs=1, compile=False)
    for step in (6, -1, 2.5):
        with pytest.raises(ValueError, match="step must be a whole number from 0 to 5, which "):
            ft.state_at(_state(), _data(), run, step)
    shutil.rmtree(run)
    with pytest.raises(ft.errors.CheckpointError, match="has no checkpoint and no log"):
        ft.state_at(_state(), _data(), run, 1)
