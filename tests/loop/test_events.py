"""Callbacks: the scopes, what may be answered, and what may not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import make_loader, make_state, quick_fit

import functrain as ft


def test_the_seven_scopes_come_in_order() -> None:
    seen: list[str] = []

    @ft.on("before_loop", "before_epoch", "before_step", "process_batch", "after_step", "after_epoch", "after_loop")
    def watch(event: ft.Event) -> None:
        seen.append(event.scope)

    quick_fit(make_state(accumulate=2), make_loader(11), epochs=2, callbacks=[watch])
    epoch = ["before_epoch", "before_step", "process_batch", "process_batch", "after_step", "after_epoch"]
    assert seen == ["before_loop", *epoch, *epoch, "after_loop"]


def test_process_batch_may_replace_the_batch() -> None:
    @ft.on("process_batch")
    def double(event: ft.Event) -> ft.Event:
        inputs, *rest = event.batch
        return event.replace(batch=(inputs * 2, *rest))

    changed = quick_fit(make_state(), make_loader(), steps=1, callbacks=[double]).state
    plain = quick_fit(make_state(), make_loader(), steps=1).state
    assert not torch.equal(changed.params["0.weight"], plain.params["0.weight"])


def test_events_are_immutable_and_answers_are_checked() -> None:
    @ft.on("after_step")
    def write(event: ft.Event) -> None:
        event.state = None  # type: ignore[misc]

    with pytest.raises(AttributeError):
        quick_fit(make_state(), make_loader(), steps=1, callbacks=[write])
    with pytest.raises(TypeError, match=r"returns None, a TrainState, an Event or Stop\(\).*returned int"):
        quick_fit(make_state(), make_loader(), steps=1, callbacks=[ft.on("after_step")(lambda event: 3)])
    with pytest.raises(TypeError, match="names its scopes"):
        quick_fit(make_state(), make_loader(), steps=1, callbacks=[lambda event: None])
    with pytest.raises(ValueError, match="no such scope: 'after_batch'"):
        ft.on("after_batch")


@pytest.mark.parametrize(
    ("scope", "changes"), [("after_epoch", {"metrics": {"mine": 1.0}}), ("before_step", {"batch": 1})]
)
def test_a_change_of_an_event_that_would_have_no_effect_is_refused(scope: str, changes: dict[str, Any]) -> None:
    @ft.on(scope)
    def change(event: ft.Event) -> ft.Event:
        return event.replace(**changes)

    with pytest.raises(
        ValueError, match=f"in {scope} a callback may change the event's state; .* {next(iter(changes))}"
    ):
        quick_fit(make_state(), make_loader(), epochs=1, callbacks=[change])


def test_an_event_made_anew_with_another_batch_is_taken() -> None:
    @ft.on("process_batch")
    def zeros(event: ft.Event) -> ft.Event:
        return ft.Event("process_batch", event.state, [torch.zeros_like(event.batch[0]), event.batch[1]])

    assert quick_fit(make_state(), make_loader(), epochs=1, callbacks=[zeros]).stopped_by == "epochs"


def test_callbacks_that_are_no_list_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    @ft.on("after_epoch")
    def report(event: ft.Event) -> None: ...

    for callbacks in (report, 3):
        with pytest.raises(TypeError, match=r"callbacks must be a list of functions, such as \[report\]"):
            quick_fit(make_state(), make_loader(), epochs=1, callbacks=callbacks, run_dir=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_run_that_goes_back_to_the_state_of_an_earlier_epoch_does_not_do_that_epoch_again() -> None:
    states: list[ft.TrainState] = []

    @ft.on("after_epoch")
    def back(event: ft.Event) -> ft.TrainState:
        states.append(event.state)
        return states[0]

    result = quick_fit(make_state(), make_loader(), epochs=3, callbacks=[back])
    assert (len(states), result.state.epoch, result.state.batch_idx) == (3, 3, 0)
    assert [record["epoch"] for record in result.history] == [1, 2, 3]
    assert torch.equal(result.state.params["0.weight"], states[0].params["0.weight"])
