"""The settings of a run are declared once: `fit`'s signature, docstring, checks and strict resume follow from it."""

import inspect
from typing import Any

import pytest
from loop_helpers import make_loader, make_state

import functrain as ft
from functrain.app.config.schema import TrainingConfig
from functrain.app.runs.changes import SHOWS_IN_NO_BIT
from functrain.loop.settings import Settings, declared, without_bits


def test_the_signature_and_the_docstring_of_fit_are_those_of_the_declaration() -> None:
    parameters = inspect.signature(ft.fit).parameters
    assert list(parameters) == ["state", "loader", *(name for name, _, _ in declared())]
    for name, default, _ in declared():
        assert parameters[name].default == default == getattr(Settings(), name)
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"\n        {name}: " in str(ft.fit.__doc__)


def test_an_argument_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="fit has no argument 'epoch'; did you mean 'epochs'"):
        ft.fit(make_state(), make_loader(), epoch=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="fit has no argument 'gpus'; it has: epochs, steps"):
        ft.fit(make_state(), make_loader(), gpus=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="a state and a loader by position, and all else by keyword"):
        ft.fit(make_state(), make_loader(), make_loader(), epochs=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name, _, metadata in declared() if metadata["kind"].allowed != "anything"])
def test_each_setting_refuses_a_value_of_another_kind(name: str) -> None:
    values: dict[str, Any] = {"epochs": 1, name: object()}
    with pytest.raises((ValueError, TypeError), match=f"{name} must be .*; got <object object"):
        Settings(**values).check(make_state())


def test_what_a_strict_resume_lets_change_is_a_key_of_the_configuration_or_no_key() -> None:
    both = {name for name in without_bits() if name in TrainingConfig.model_fields}
    assert both == {"donate", "steps_per_call", "save_every", "save_every_minutes", "keep", "keep_best", "tensorboard"}
    assert {f"training.{name}" for name in both} <= set(SHOWS_IN_NO_BIT)


def test_a_key_of_the_configuration_has_the_default_of_fit() -> None:
    for name, default, _ in declared():
        if name in TrainingConfig.model_fields:
            assert TrainingConfig.model_fields[name].default == default, name
