"""Any number that an optimizer computes with may be a schedule; over the registry, by the signature's annotations."""

import inspect

import pytest
import torch
from optim_helpers import gradients, make_params, run

from functrain import optim
from functrain.foundation import trees
from functrain.optim import schedules
from functrain.optim.schedules import Hyperparameter

STEPS, TURN = 9, 6  # RAdam divides from its sixth update on
EPS = torch.finfo(torch.float64).eps
# One value for each, and another; what an argument needs beside itself.
VALUES = {
    "lr": (0.05, 0.02),
    "weight_decay": (0.01, 0.1),
    "momentum": (0.9, 0.5),
    "eps": (1e-8, 1e-3),
    "adamw_eps": (1e-8, 1e-3),
    "dampening": (0.1, 0.5),
    "momentum_decay": (4e-3, 0.1),
    "alpha": (0.9, 0.6),
    "rho": (0.9, 0.6),
    "betas": ((0.9, 0.99), (0.7, 0.95)),
    "adamw_betas": ((0.9, 0.99), (0.7, 0.95)),
}
NEEDS = {"dampening": {"momentum": 0.9}}
MAKERS = {**optim.REGISTRY, "lookahead": lambda **kwargs: optim.lookahead(optim.sgd(0.05), k=2, **kwargs)}


def signature(name):
    return inspect.signature(optim.lookahead if name == "lookahead" else MAKERS[name])


SCHEDULABLE = [
    pytest.param(name, argument, id=f"{name}-{argument}")
    for name in MAKERS
    for argument, parameter in signature(name).parameters.items()
    if parameter.annotation in (Hyperparameter, tuple[Hyperparameter, Hyperparameter])
]


def make(name, argument, value):
    return MAKERS[name](**{**NEEDS.get(argument, {}), argument: value})


def scheduled(value, other=None, turn=1):
    """The value, as a schedule; or the other from update `turn` on."""
    if isinstance(value, tuple):
        return tuple(scheduled(*each, turn) for each in zip(value, other or value))
    if other is None:
        return schedules.constant(value)
    return schedules.join([schedules.constant(value), schedules.constant(other)], [turn])


def assert_equal_to_rounding(actual, expected):
    # Muon's iterations are in bfloat16, where a rounding of the momentum may become one of theirs.
    torch.testing.assert_close(trees.leaves(actual), trees.leaves(expected), rtol=50 * EPS, atol=50 * EPS)


@pytest.mark.parametrize(("name", "argument"), SCHEDULABLE)
def test_a_constant_schedule_is_its_number(name, argument):
    value = VALUES[argument][1]
    as_number, _ = run(make(name, argument, value), make_params(), STEPS)
    as_schedule, _ = run(make(name, argument, scheduled(value)), make_params(), STEPS)
    assert_equal_to_rounding(as_schedule, as_number)


@pytest.mark.parametrize(("name", "argument"), SCHEDULABLE)
def test_each_update_has_the_value_that_the_schedule_gives_for_it(name, argument):
    value, other = VALUES[argument]
    before, after = (make(name, argument, scheduled(each)) for each in (value, other))
    both = make(name, argument, scheduled(value, other, TURN))
    params, (expected, state) = make_params(), run(before, make_params(), TURN)
    for count in range(TURN, STEPS):
        updates, state = after.update(gradients(expected, count), state, expected)
        expected = optim.apply_updates(expected, updates)
    actual, _ = run(both, params, STEPS)
    assert_equal_to_rounding(actual, expected)
    unchanged, _ = run(before, params, STEPS)
    moved = [not torch.equal(left, right) for left, right in zip(trees.leaves(actual), trees.leaves(unchanged))]
    assert any(moved)
