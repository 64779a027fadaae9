"""The settings of a run are declared once: `fit`'s signature, docstring, checks and strict resume follow from it."""

import inspect
from dataclasses import fields
from typing import Any

import pytest
from loop_helpers import make_loader, make_state

import functrain as ft
from functrain.app.config.keys import keys_in
from functrain.app.config.schema import Config
from functrain.app.runs.changes import SHOWS_IN_NO_BIT
from functrain.loop.output.sinks import Tracker
from functrain.loop.settings import TRACKERS, Settings, declared


def test_the_signature_and_the_docstring_of_fit_are_those_of_the_declaration() -> None:
    parameters = inspect.signature(ft.fit).parameters
    assert list(parameters) == ["state", "loader", *(each.name for each in declared())]
    for each in declared():
        assert parameters[each.name].default == each.default == getattr(Settings(), each.name)
        assert parameters[each.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"\n        {each.name}: " in str(ft.fit.__doc__)


def test_an_argument_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="fit has no argument 'epoch'; did you mean 'epochs'"):
        ft.fit(make_state(), make_loader(), epoch=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="fit has no argument 'gpus'; it has: epochs, steps"):
        ft.fit(make_state(), make_loader(), gpus=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="a state and a loader by position, and all else by keyword"):
        ft.fit(make_state(), make_loader(), make_loader(), epochs=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [each.name for each in declared() if each.kind.allowed != "anything"])
def test_each_setting_refuses_a_value_of_another_kind(name: str) -> None:
    values: dict[str, Any] = {"epochs": 1, name: object()}
    with pytest.raises((ValueError, TypeError), match=f"{name} must be .*; got <object object"):
        Settings(**values).check(make_state())


def test_each_setting_but_those_of_scripts_and_options_has_one_place_in_a_configuration() -> None:
    without = "max_time eval_loader metrics callbacks run_dir resume strict_resume metadata progress on_signal"
    assert {each.name for each in declared() if each.key is None} == set(without.split())
    places = [each.place for each in declared() if each.key is not None]
    assert len(places) == len(set(places))
    keys = {each.dotted: each for each in keys_in(Config)}
    for each in declared():
        if each.key is not None:
            assert keys[each.place].info.default == each.default, each.name
            assert keys[each.place].bits == each.bits, each.name


def _places(tracker: Tracker) -> list[str]:
    return [tracker.name, *(f"{tracker.name}.{each.name}" for each in fields(tracker.options))]


def test_a_strict_resume_lets_those_settings_change_that_change_no_bits() -> None:
    assert {key for key in SHOWS_IN_NO_BIT if key.partition(".")[0] != "sweep"} == {
        *("name", "stage", "code", "compile.donate", "compile.steps_per_call", "logging.tensorboard"),
        "logging.digest_every",
        "distributed.timeout_s",
        *(f"logging.{place}" for tracker in TRACKERS for place in _places(tracker)),
        *("checkpoint.save_every", "checkpoint.save_every_minutes", "checkpoint.keep", "checkpoint.keep_best"),
        *("data.num_workers", "data.pin_memory", "data.persistent_workers", "data.prefetch_factor"),
    }
