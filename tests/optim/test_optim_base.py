"""Chains, updates and trees that do not fit."""

import pytest
import torch

from functrain import optim
from functrain.foundation import trees
from functrain.optim.base import zero_count


def test_apply_updates_adds_and_keeps_each_parameters_dtype():
    params = {"half": torch.ones(2, dtype=torch.bfloat16), "scalar": torch.tensor(1.0)}
    updates = {"half": torch.full((2,), 0.5), "scalar": torch.tensor(0.5, dtype=torch.float64)}
    new = optim.apply_updates(params, updates)
    assert new["half"].dtype == torch.bfloat16
    assert new["scalar"].dtype == torch.float32
    assert new["half"].tolist() == [1.5, 1.5]
    assert new["scalar"].item() == 1.5


def test_apply_updates_names_the_leaves_that_do_not_fit():
    with pytest.raises(ValueError, match=r"updates must have .* of params: missing \['b'\], unexpected \['c'\]"):
        optim.apply_updates({"a": torch.ones(1), "b": torch.ones(1)}, {"a": torch.ones(1), "c": torch.ones(1)})


def test_the_same_names_in_other_containers_do_not_fit():
    with pytest.raises(ValueError, match="the containers differ"):
        optim.apply_updates([torch.ones(1)], (torch.ones(1),))


def test_a_chain_applies_in_order_and_its_state_is_the_tuple_of_states():
    params = {"w": torch.tensor(1.0)}
    clip_last = optim.chain(optim.scale(100.0), optim.clip_by_value(1.0))
    clip_first = optim.chain(optim.clip_by_value(1.0), optim.scale(100.0))
    assert clip_last.update(params, clip_last.init(params), params)[0]["w"].item() == 1.0
    assert clip_first.update(params, clip_first.init(params), params)[0]["w"].item() == 100.0
    nested = optim.chain(optim.identity(), optim.chain(optim.trace(0.9)))
    state = nested.init(params)
    assert isinstance(state, tuple)
    assert trees.paths(state) == ["1/0/count", "1/0/momentum_buffer/w"]


def test_a_chain_refuses_the_state_of_another_chain():
    with pytest.raises(ValueError, match="a chain of 1 transforms must have as many parts, got 2"):
        optim.chain(optim.identity()).update({}, ((), ()), {})


@pytest.mark.parametrize(
    ("taker", "make"),
    [
        ("chain", lambda given: optim.chain(optim.identity(), given)),
        ("lookahead", optim.lookahead),
        ("masked", lambda given: optim.masked(given, optim.no_decay_1d)),
        ("sam", optim.sam),
    ],
)
def test_what_takes_an_optimizer_refuses_anything_else(taker, make):
    for given, name in ((3, "3"), (optim.sgd, "<function sgd")):
        with pytest.raises(TypeError, match=f"{taker} takes optimizers and transforms, .*; got {name}"):
            make(given)


def test_an_empty_chain_is_the_identity():
    updates = {"w": torch.ones(1)}
    assert optim.chain().update(updates, (), updates) == (updates, ())


def test_an_optimizer_is_a_hashable_pair():
    init, update = optimizer = optim.adam()
    assert (optimizer.init, optimizer.update) == (init, update)
    assert hash(optimizer) == hash(optimizer)


def test_counts_live_on_the_parameters_device():
    assert zero_count({"w": torch.empty(2, device="meta")}).device.type == "meta"
    assert zero_count({}).device.type == "cpu"


def doubled(keep):
    """An optimizer whose updates `keep` may hold on to."""
    return optim.stateless(lambda updates, _params: keep({name: leaf * 2 for name, leaf in updates.items()}))


def test_a_step_takes_the_memory_of_updates_that_nobody_else_holds():
    addresses = []
    optimizer = doubled(lambda updates: addresses.append(updates["w"].data_ptr()) or updates)
    params, _ = optim.step(optimizer, {"w": torch.ones(3)}, (), {"w": torch.ones(3)})
    assert params["w"].data_ptr() == addresses[0]
    assert params["w"].tolist() == [3.0, 3.0, 3.0]


HELD = {
    "the gradients": lambda grads: optim.identity(),
    "their container": lambda grads: optim.stateless(lambda _updates, _params: {"inner": grads["inner"]}),
    "a leaf": lambda grads: optim.stateless(lambda updates, _params: {"inner": dict(updates["inner"])}),
    "a view": lambda grads: optim.stateless(
        lambda updates, _params: {"inner": {name: leaf.view(-1).view(3) for name, leaf in updates["inner"].items()}}
    ),
    "detached": lambda grads: optim.stateless(lambda updates, _: trees.tree_map(torch.Tensor.detach, updates)),
    "a constant": lambda grads: optim.stateless(lambda _updates, _params, constant=grads: constant),
    "one for two": lambda grads: optim.stateless(
        lambda updates, _params: {"inner": dict.fromkeys(updates["inner"], updates["inner"]["v"] * 2)}
    ),
    "a row of ones": lambda grads: optim.stateless(
        lambda updates, _params: {"inner": {name: torch.ones(1).expand(3) for name in updates["inner"]}}
    ),
    "the state's": lambda grads: optim.trace(0.9),
}


@pytest.mark.parametrize("make", HELD.values(), ids=HELD.keys())
def test_a_step_writes_to_no_memory_that_somebody_holds(make, bits):
    grads = {"inner": {"v": torch.arange(3.0), "w": torch.ones(3)}}
    params = trees.tree_map(torch.ones_like, grads)
    optimizer = make(grads)
    state = optimizer.init(params)
    updates, expected_state = optimizer.update(grads, state, params)
    expected = optim.apply_updates(params, updates)
    before = bits((grads, params, state))
    new, new_state = optim.step(optimizer, grads, state, params)
    assert bits((new, new_state)) == bits((expected, expected_state))
    assert bits((grads, params, state)) == before
