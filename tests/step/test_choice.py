"""The choice between two trees: read on the CPU, computed in a graph, the same result, and no memory shared."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain.foundation import trees
from functrain.step.choose import choose


def pair():
    before = {"w": torch.randn(3), "kept": torch.tensor(2.0), "n": torch.tensor(1), "empty": torch.zeros(0, 2)}
    after = {"w": before["w"] + 1, "kept": before["kept"], "n": before["n"] + 1, "empty": before["empty"]}
    return before, after


@given(condition=st.booleans())
def test_read_or_computed_it_is_the_same_tree(condition, bits):
    before, after = pair()
    condition = torch.tensor(condition)
    expected = trees.tree_map(lambda a, b: torch.where(condition, a, b), after, before)
    assert bits(choose(condition, after, before)) == bits(expected)
    graph = make_fx(choose, tracing_mode="fake", _allow_non_fake_inputs=True)(torch.tensor(True), after, before)
    assert bits(graph(condition, after, before)) == bits(expected)
    mapped = torch.vmap(lambda c, w: choose(c, {"w": w}, {"w": 0 * w}), in_dims=(0, None))
    assert mapped(torch.stack([condition, ~condition]), before["w"])["w"].shape == (2, 3)


@pytest.mark.parametrize("condition", [True, False])
def test_no_result_shares_memory_with_the_tree_before(condition):
    before, after = pair()
    chosen = choose(torch.tensor(condition), after, before)
    held = {leaf.data_ptr() for leaf in before.values() if leaf.numel()}
    assert not any(leaf.data_ptr() in held for leaf in chosen.values() if leaf.numel())


def test_trees_of_two_structures_are_refused():
    with pytest.raises(ValueError, match="mismatch"):
        choose(torch.tensor(True), {"w": torch.ones(1)}, {"v": torch.ones(1)})


@pytest.mark.parametrize("name", sorted(ft.optim.REGISTRY))
def test_two_successive_states_share_no_memory_but_of_what_is_frozen(name):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    model[0].requires_grad_(False)
    before = ft.init_state(model, ft.classification(), ft.optim.REGISTRY[name](), ema_decay=0.9)
    for _ in range(2):
        after, _ = ft.train_step(before, (torch.randn(4, 2), torch.tensor([0, 1, 0, 1])))
        held = {leaf.data_ptr() for path, leaf in trees.leaves_with_paths(before) if isinstance(leaf, torch.Tensor)}
        shared = [
            path
            for path, leaf in trees.leaves_with_paths(after)
            if isinstance(leaf, torch.Tensor) and leaf.numel() and leaf.data_ptr() in held
        ]
        assert shared == ["params/0.bias", "params/0.weight"]
        before = after
