import inspect
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch

from functrain.app.config.parameters import FILLED_IN, complaint, converted, is_objective, signature, takes
from functrain.app.config.registry import REGISTRY


def sample(
    first: int,
    pair: tuple[float, float] = (0.0, 1.0),
    choice: Literal["a", "b"] = "a",
    either: float | Callable[[int], float] = 0.1,
    function: Callable[[int], float] | None = None,
    tensor: torch.Tensor | None = None,
    anything: Any = None,
    bare=3,
    *args,
    keyword: bool = False,
    **others,
): ...


def test_parameters_that_yaml_has_values_for():
    found = signature("model", sample)
    assert list(found.types) == ["first", "pair", "choice", "either", "anything", "bare", "keyword"]
    assert found.types["either"] is float
    assert found.required == ("first",)
    assert found.open


@pytest.mark.parametrize(
    ("value", "expected", "message"),
    [
        ([0.9, 1], tuple[float, float], None),
        ([0.9], tuple[float, float], "must have more items; got [0.9]"),
        ("3", int, "must be a whole number; got '3'"),
        (3, float, None),
        (True, int, "must be a whole number; got true"),
        (1, bool, "must be true or false; got 1"),
        (None, float | None, None),
        ("c", Literal["a", "b"], "must be 'a' or 'b'; got 'c'"),
        ({"a": 1}, dict[str, int], None),
        ("x", int | str, None),
        (object, Any, None),
    ],
)
def test_values_are_of_the_type_or_complained_about(value, expected, message):
    found = complaint(value, expected)
    assert found is None if message is None else found.startswith(message)


def test_a_sequence_is_a_list_in_yaml_and_a_tuple_to_the_function():
    assert signature("schedule", REGISTRY["schedule"]["multi_step"]).types["milestones"] == tuple[int, ...]
    weights = signature("objective", REGISTRY["objective"]["classification"]).types["class_weights"]
    assert converted([1.0, 2.5], weights) == (1.0, 2.5)
    assert converted(None, weights) is None


def test_lists_become_tuples_where_a_tuple_is_wanted():
    assert converted([1, 2], tuple[int, int]) == (1, 2)
    assert converted([1, 2], list[int]) == [1, 2]
    assert converted([1, 2], Any) == [1, 2]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in REGISTRY.items() for name in table])
def test_every_default_of_a_registered_function_is_a_value_its_own_check_accepts(kind, name):
    function = REGISTRY[kind][name]
    found = signature(kind, function)
    assert not FILLED_IN[kind] & set(found.types)
    for key, expected in found.types.items():
        default = inspect.signature(function).parameters[key].default
        if default is not inspect.Parameter.empty:
            value = list(default) if isinstance(default, tuple) else default
            assert complaint(value, expected) is None, key


def test_an_objective_is_told_from_a_factory_of_one():
    assert is_objective("objective", lambda model, batch: None)
    assert not is_objective("objective", lambda smoothing: None)
    assert not is_objective("model", lambda model, batch: None)
    assert takes(sample, "pair")
    assert not takes(sample, "absent")
