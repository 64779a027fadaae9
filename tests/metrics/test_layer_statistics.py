"""Statistics of gradients and updates against NumPy, and what a step needs of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.foundation import trees
from functrain.metrics.layer_statistics import module_of, tree_statistics, update_statistics


def tree(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (3, 4), "a.bias": (3,), "b.weight": (2, 2, 2), "scale": (), "none": (0, 2)}
    values = {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}
    values["a.weight"][0, ::2] = 0
    return values


def expected(leaf):
    x = np.concatenate([np.atleast_1d(each).ravel() for each in leaf])
    if not len(x):
        return [0.0, 0.0, 0.0, 0.0]
    return [np.linalg.norm(x), x.mean(), np.abs(x).max(), (x == 0).mean()]


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_each_parameter_has_numpys_numbers(seed):
    values = tree(seed)
    found = tree_statistics(values)
    assert found.layers == tuple(trees.paths(values))
    rows = [expected([values[name].numpy()]) for name in found.layers]
    np.testing.assert_allclose(found.values.numpy(), rows, rtol=1e-13, atol=1e-15)


def test_the_parameters_of_a_module_are_one_layer():
    values = tree()
    found = tree_statistics(values, layer=module_of)
    assert found.layers == ("a", "b", "none", "scale")
    rows = [
        expected([leaf.numpy() for name, leaf in values.items() if module_of(name) == layer]) for layer in found.layers
    ]
    np.testing.assert_allclose(found.values.numpy(), rows, rtol=1e-13, atol=1e-15)


def test_an_update_has_its_ratio_to_the_weights_and_none_to_weights_of_zero():
    updates, params = tree(0), tree(1)
    params["a.bias"] = torch.zeros(3, dtype=torch.float64)
    metrics = update_statistics(updates, params).metrics("update")
    assert metrics["update/a.bias/ratio"].isnan()
    for name in ("a.weight", "b.weight", "scale"):
        ratio = updates[name].norm() / params[name].norm()
        torch.testing.assert_close(metrics[f"update/{name}/ratio"], ratio, rtol=1e-14, atol=0)
    torch.testing.assert_close(metrics["update/scale/norm"], updates["scale"].abs())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_are_float32_or_the_trees_own_wider_type_without_gradient(dtype):
    leaf = torch.full((70_000,), 3.0, dtype=dtype, requires_grad=True)  # its squares sum beyond float16
    found = tree_statistics({"w": leaf})
    assert found.values.dtype == torch.promote_types(dtype, torch.float32)
    assert not found.values.requires_grad
    torch.testing.assert_close(found.values[0, 0].item(), 3.0 * 70_000**0.5, rtol=1e-5, atol=0)


def test_a_norm_is_finite_where_its_squares_are_not():
    found = tree_statistics({"w": torch.full((4,), 1e25), "v": torch.full((4,), 1e-25)})
    torch.testing.assert_close(found.values[:, 0], torch.tensor([2e-25, 2e25]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_its_own_layer_only(bad):
    values = tree()
    values["b.weight"][0, 0, 0] = bad
    found = tree_statistics(values, layer=module_of)
    finite = dict(zip(found.layers, found.values.isfinite().all(1).tolist()))
    assert finite == {"a": True, "b": False, "none": True, "scale": True}


def test_a_traced_graph_gives_the_eager_bits_for_any_values():
    names = list(tree())

    def run(*tensors):
        half = len(tensors) // 2
        updates, params = (dict(zip(names, part)) for part in (tensors[:half], tensors[half:]))
        return update_statistics(updates, params, layer=module_of).values

    graph = make_fx(run, tracing_mode="fake")(*tree(0).values(), *tree(1).values())
    for seed in (2, 3):
        arguments = (*tree(seed).values(), *tree(seed + 10).values())
        torch.testing.assert_close(graph(*arguments), run(*arguments), rtol=0, atol=0, equal_nan=True)


def test_the_result_is_a_tree_of_one_tensor():
    found = tree_statistics(tree())
    assert len(trees.leaves(found)) == 1
    assert trees.structure(found) == trees.structure(tree_statistics(tree(5)))


def test_trees_that_cannot_be_looked_at_are_refused():
    with pytest.raises(ValueError, match="without leaves"):
        tree_statistics({})
    with pytest.raises(ValueError, match="one structure"):
        update_statistics({"a": torch.ones(1)}, {"b": torch.ones(1)})
