"""Every public name of optimizers, schedules, losses and objectives says what it does, and functions show it."""

import inspect

import pytest

from functrain import objectives, optim
from functrain.objectives import losses
from functrain.optim import schedules


def public(module):
    """(name, object) of what users call: functions, and the methods of classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if inspect.isfunction(value) or (inspect.isclass(value) and value.__module__.startswith("functrain.")):
            yield name, value


NAMES = [
    pytest.param(value, id=f"{module.__name__}.{name}")
    for module in (optim, schedules, objectives, losses)
    for name, value in public(module)
]


@pytest.mark.parametrize("value", NAMES)
def test_every_public_name_is_documented_and_functions_have_a_runnable_example(value):
    assert (inspect.getdoc(value) or "").strip()
    if inspect.isfunction(value):
        assert ">>>" in value.__doc__
    else:  # a state says what is in it; what it does is shown at its methods
        for name, method in vars(value).items():
            if inspect.isfunction(method) and not name.startswith("_") and name != "forward":
                assert ">>>" in (method.__doc__ or "") or ">>>" in value.__doc__, name


def test_the_registry_of_optimizers_is_exported_with_equations_references_and_arguments():
    for name, make in optim.REGISTRY.items():
        assert getattr(optim, name) is make
        doc = inspect.getdoc(make)
        assert "References:" in doc
        undocumented = [each for each in inspect.signature(make).parameters if f"{each}:" not in doc]
        assert not undocumented or "The arguments are those of `adam`" in doc, (name, undocumented)
