"""Updates refused in a row end a run that would otherwise go on for ever, with a message that names a leaf."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.checkpoint import read_info
from functrain.foundation.errors import NonFiniteError

GOOD = (torch.ones(2, 3), torch.zeros(2, 1))
BAD = (torch.full((2, 3), float("nan")), torch.zeros(2, 1))


def objective(model: Any, batch: Any) -> ft.Loss:
    """Finite where the weights are 0, with a gradient that is not."""
    return ft.Loss(model(batch[0]).sqrt().sum(), len(batch[0]))


def make_state(objective: Any = ft.regression(), **options: Any) -> ft.TrainState:  # noqa: B008 - it is immutable
    model = nn.Linear(3, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return ft.init_state(model, objective, ft.optim.sgd(0.1), **options)


def quick_fit(state: ft.TrainState, data: Any, **options: Any) -> ft.FitResult:
    settings = {"compile": False, "progress": False, "epochs": 1, "on_nonfinite": "skip", **options}
    return ft.fit(state, data, **settings)


@pytest.mark.parametrize("compiled", [False, True])
def test_so_many_refused_updates_in_a_row_end_the_run(compiled: bool, tmp_path: Path) -> None:
    options = {"compile": compiled, "backend": "aot_eager", "max_consecutive_skips": 3}
    data = [GOOD, BAD, BAD, GOOD, BAD, BAD, BAD, GOOD]
    expected = r"3 updates in a row were refused \(max_consecutive_skips is 3\)\..* at step 7 .*the batch's part '0'"
    with pytest.raises(NonFiniteError, match=expected):
        quick_fit(make_state(), data, run_dir=tmp_path, **options)
    assert read_info(next((tmp_path / "checkpoints").glob("step-*"))).status == "NONFINITE"
    assert quick_fit(make_state(), data[:6], **options).state.counts.skipped_in_a_row.item() == 2
    assert quick_fit(make_state(), data, **{**options, "max_consecutive_skips": None}).state.step == 8


def test_a_gradient_that_is_not_finite_is_named() -> None:
    for options in ({"max_consecutive_skips": 1}, {"on_nonfinite": "stop"}):
        with pytest.raises(
            NonFiniteError, match=r"the gradient norm is inf.*The first leaf .* is the gradient of 'bias'"
        ):
            quick_fit(make_state(objective), [GOOD], **options)


def test_overflows_of_a_loss_scale_that_adapts_end_a_run_too_and_of_a_constant_one_stop_it() -> None:
    state = make_state(objective, precision="fp16")
    with pytest.raises(NonFiniteError, match=r"2 updates in a row were refused with a loss scale of 3\.277e"):
        quick_fit(state, [GOOD] * 4, max_consecutive_skips=2, on_nonfinite="stop")
    with pytest.raises(NonFiniteError, match=r"at step 1 "):
        quick_fit(make_state(objective, loss_scale=8.0), [GOOD] * 4, on_nonfinite="stop")


def test_a_limit_is_a_whole_number() -> None:
    with pytest.raises(ValueError, match="max_consecutive_skips must be a whole number, 1 or more; got 0"):
        quick_fit(make_state(), [GOOD], max_consecutive_skips=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_state_that_refuses_nothing_takes_what_is_not_finite(compiled: bool) -> None:
    step = ft.compile(ft.train_step, backend="aot_eager") if compiled else ft.train_step
    state, metrics = step(make_state(refuse_nonfinite=False), GOOD)
    assert metrics["skipped"].item() == 0
    state, metrics = step(state, BAD)
    assert metrics["skipped"].item() == 1
    assert state.params["weight"].isnan().all()
    assert [state.counts.applied.item(), state.counts.skipped_in_a_row.item()] == [2, 1]
    weightless = (*GOOD, torch.zeros(2))
    before = make_state(refuse_nonfinite=False)
    after, metrics = ft.train_step(before, weightless)
    assert all(map(torch.equal, after.params.values(), before.params.values()))


def test_a_run_that_refuses_nothing_ends_and_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    state = make_state(refuse_nonfinite=False)
    expected = r"the loss is nan at step 3 .*the batch's part '0'.*is not saved: start again with refuse_nonfinite=True"
    rows = torch.utils.data.TensorDataset(*map(torch.cat, zip(GOOD, GOOD, BAD, GOOD)))
    loader, run = ft.data.Loader(rows, 2), tmp_path / "run"
    with pytest.raises(NonFiniteError, match=expected):
        quick_fit(state, loader, on_nonfinite="stop", run_dir=run, save_every=1)
    again = quick_fit(make_state(), loader, run_dir=run)
    assert again.state.step == 4
    assert all(leaf.isfinite().all() for leaf in again.state.params.values())


def test_refusing_nothing_does_not_go_with_skipping_nor_with_a_scale_that_adapts_itself() -> None:
    with pytest.raises(ValueError, match='on_nonfinite="skip" leaves updates out'):
        quick_fit(make_state(refuse_nonfinite=False), [GOOD])
    with pytest.raises(ValueError, match="refuse_nonfinite=False goes with no loss scale that adapts itself"):
        make_state(refuse_nonfinite=False, precision="fp16")
    with pytest.raises(TypeError, match="refuse_nonfinite must be True or False, got 1"):
        make_state(refuse_nonfinite=1)
