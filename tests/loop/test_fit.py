"""fit: when it ends, and what it leaves alone."""

import torch
from loop_helpers import EXAMPLES, assert_same_bits, make_loader, make_state, quick_fit
from torch import Tensor

import functrain as ft
from functrain.foundation.trees import leaves_with_paths


def test_epochs_and_steps_count_from_the_beginning_of_the_run() -> None:
    first = quick_fit(make_state(), make_loader(), epochs=2)
    assert (first.stopped_by, first.state.epoch, first.state.step) == ("epochs", 2, 12)
    assert quick_fit(first.state, make_loader(), epochs=2).state is first.state
    second = quick_fit(first.state, make_loader(), epochs=9, steps=14)
    assert (second.stopped_by, second.state.step, second.state.batch_idx) == ("steps", 14, 2)
    assert second.state.samples_seen == 2 * EXAMPLES + 8


def test_steps_that_end_with_an_epoch_end_the_epoch() -> None:
    result = quick_fit(make_state(), make_loader(), steps=12)
    assert (result.stopped_by, result.state.epoch, result.state.batch_idx) == ("steps", 2, 0)
    assert [record["kind"] for record in result.history] == ["epoch", "epoch"]


def test_two_short_fits_equal_one_long_one() -> None:
    whole = quick_fit(make_state(), make_loader(), epochs=3).state
    parts = quick_fit(make_state(), make_loader(), steps=8).state
    assert_same_bits(quick_fit(parts, make_loader(), epochs=3).state, whole)


def test_a_callback_can_stop_and_can_return_a_state() -> None:
    @ft.on("after_step")
    def callback(event: ft.Event) -> ft.Stop | None:
        if event.state.step == 3:
            return ft.Stop(event.state.replace(key=7))
        return None

    result = quick_fit(make_state(), make_loader(), epochs=2, callbacks=[callback])
    assert (result.stopped_by, result.state.step, result.state.key) == ("callback", 3, 7)


def test_fit_leaves_the_global_generators_alone() -> None:
    state, loader = make_state(), make_loader()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    quick_fit(state, loader, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_callers_state_is_not_changed() -> None:
    state = make_state(accumulate=2)
    copies = {path: leaf.clone() if isinstance(leaf, Tensor) else leaf for path, leaf in leaves_with_paths(state)}
    quick_fit(state, make_loader(), epochs=1)
    for path, leaf in leaves_with_paths(state):
        assert torch.equal(leaf, copies[path]) if isinstance(leaf, Tensor) else leaf == copies[path], path
