"""Masked transforms leave the rest alone."""

import pytest
import torch

from functrain import optim
from functrain.foundation import trees

PARAMS = {"layer": {"weight": torch.ones(2, 3), "bias": torch.ones(3)}, "scale": torch.tensor(1.0)}
GRADS = trees.tree_map(lambda leaf: leaf * 5, PARAMS)
TREE_MASK = {"layer": {"weight": True, "bias": False}, "scale": False}


@pytest.mark.parametrize("mask", [optim.no_decay_1d, TREE_MASK, lambda path, leaf: path == "layer/weight"])
def test_masked_out_leaves_pass_through_and_have_no_state(mask):
    transform = optim.masked(optim.scale_by_adam(), mask)
    state = transform.init(PARAMS)
    assert trees.paths(state) == ["count", "exp_avg/layer/weight", "exp_avg_sq/layer/weight"]
    updates, new_state = transform.update(GRADS, state, PARAMS)
    assert trees.structure(new_state) == trees.structure(state)
    assert trees.structure(updates) == trees.structure(PARAMS)
    torch.testing.assert_close(updates["layer"]["weight"], torch.ones(2, 3))
    assert updates["layer"]["bias"] is GRADS["layer"]["bias"]
    assert updates["scale"] is GRADS["scale"]


def test_two_masked_optimizers_train_two_groups():
    def is_weight(path, leaf):
        return path.endswith("weight")

    both = optim.chain(
        optim.masked(optim.sgd(0.1), is_weight),
        optim.masked(optim.sgd(0.01), lambda path, leaf: not is_weight(path, leaf)),
    )
    updates, _ = both.update(GRADS, both.init(PARAMS), PARAMS)
    torch.testing.assert_close(updates["layer"]["weight"], torch.full((2, 3), -0.5))
    torch.testing.assert_close(updates["layer"]["bias"], torch.full((3,), -0.05))


@pytest.mark.parametrize("chosen", [True, False])
def test_a_mask_of_all_or_nothing_is_the_transform_or_the_identity(chosen):
    whole = optim.scale(3.0) if chosen else optim.identity()
    transform = optim.masked(optim.scale(3.0), lambda path, leaf: chosen)
    actual, expected = (t.update(GRADS, t.init(PARAMS), PARAMS)[0] for t in (transform, whole))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_a_predicate_sees_paths_and_parameters_not_gradients():
    seen = []
    transform = optim.masked(optim.scale(1.0), lambda path, leaf: seen.append((path, leaf)) is None)
    transform.update(GRADS, transform.init({}), PARAMS)
    assert [path for path, _ in seen] == ["layer/bias", "layer/weight", "scale"]
    assert seen[0][1] is PARAMS["layer"]["bias"]


def test_a_mask_of_another_structure_is_refused():
    with pytest.raises(ValueError, match=r"mask must have the tree structure of params: missing \['scale'\]"):
        optim.masked(optim.scale(1.0), {"layer": {"weight": True, "bias": False}}).init(PARAMS)


def test_a_mask_of_anything_but_bools_is_refused():
    with pytest.raises(TypeError, match=r"leaves True and False, got 0\.5 for parameter 'scale'"):
        optim.masked(optim.scale(1.0), {**TREE_MASK, "scale": 0.5}).init(PARAMS)
