"""Callbacks: the scopes, what may be answered, and what may not."""

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
