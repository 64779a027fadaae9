"""Groups of parameters by the patterns of their paths."""

import pytest
import torch
from optim_helpers import gradients, run

from functrain import optim

PARAMS = {name: torch.ones(2) for name in ("layers.0.weight", "layers.0.bias", "layers.1.weight", "head.weight")}


def test_each_parameter_moves_as_with_the_optimizer_of_the_first_pattern_that_matches():
    optimizer = optim.partition({"head.*": optim.adamw(0.1), "*.bias": optim.sgd(0.5), "*": optim.sgd(0.1, 0.9)})
    own = {"head.weight": optim.adamw(0.1), "layers.0.bias": optim.sgd(0.5)}
    state, states = optimizer.init(PARAMS), {}
    for count in range(3):
        grads = gradients(PARAMS, count)
        updates, state = optimizer.update(grads, state, PARAMS)
        for name in PARAMS:
            alone, param = own.get(name, optim.sgd(0.1, 0.9)), {name: PARAMS[name]}
            old = states[name] if name in states else alone.init(param)
            expected, states[name] = alone.update({name: grads[name]}, old, param)
            assert torch.equal(updates[name], expected[name])
    assert list(updates) == list(PARAMS)


def test_the_learning_rates_are_those_of_the_groups_in_order():
    optimizer = optim.partition({"head.*": optim.adamw(0.1), "*": optim.sgd(0.5)})
    assert [rate.item() for rate in optim.learning_rates(optimizer.init(PARAMS))] == [0.1, 0.5]


def test_a_parameter_without_a_group_is_named():
    with pytest.raises(
        ValueError, match=r"no pattern of 'head\.\*' matches 'layers\.0\.bias', .*add a last pattern '\*'"
    ):
        optim.partition({"head.*": optim.sgd()}).init(PARAMS)


@pytest.mark.parametrize("groups", [["heads.*", "*"], ["*", "head.*"]])
def test_a_pattern_without_a_parameter_is_named(groups):
    with pytest.raises(ValueError, match=r"the pattern 'heads?\.\*' matches no parameter"):
        optim.partition({pattern: optim.sgd() for pattern in groups}).init(PARAMS)


def test_a_group_that_is_no_optimizer_is_refused():
    with pytest.raises(TypeError, match=r"the group '\*' must have an optimizer, got 0\.1"):
        optim.partition({"*": 0.1})


def test_a_large_tree_with_one_group_equals_the_optimizer_itself():
    actual, _ = run(optim.partition({"*": optim.adamw(0.1)}), PARAMS, 4)
    expected, _ = run(optim.adamw(0.1), PARAMS, 4)
    assert all(torch.equal(actual[name], expected[name]) for name in PARAMS)
