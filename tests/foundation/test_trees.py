"""Trees: what is a leaf, what is structure, and what leaves are called."""

import dataclasses

import pytest
import torch
import torch.utils._pytree as torch_pytree
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.foundation import trees
from functrain.foundation.trees import node, static


@node
class Layer:
    weight: torch.Tensor
    children: dict
    name: str = static(default="layer")


def layer(name="layer"):
    return Layer(torch.arange(3.0), {"b": torch.tensor(2), "a": None, "c": (torch.tensor(True),)}, name)


nested = st.recursive(
    st.integers(),
    lambda children: (
        st.dictionaries(st.text(max_size=4), children, max_size=3)
        | st.lists(children, max_size=3)
        | st.tuples(children, children)
    ),
    max_leaves=12,
)


def test_both_pytree_systems_see_the_same_leaves_of_a_node():
    value = layer()
    ours = trees.leaves(value)
    theirs, spec = torch_pytree.tree_flatten(value)
    assert len(ours) == 3
    assert {id(leaf) for leaf in ours} == {id(leaf) for leaf in theirs if leaf is not None}
    back = torch_pytree.tree_unflatten(theirs, spec)
    assert isinstance(back, Layer)
    assert back.name == "layer"
    assert back.weight is value.weight


def test_torch_pytree_names_the_fields_of_a_node():
    keys = [torch_pytree.keystr(path) for path, _ in torch_pytree.tree_flatten_with_path(layer())[0]]
    assert keys[0] == ".weight"
    assert ".children['b']" in keys


def test_torch_func_differentiates_through_a_node():
    grad = torch.func.grad(lambda value: (value.weight**2).sum())(Layer(torch.arange(3.0), {}))
    assert isinstance(grad, Layer)
    assert grad.weight.tolist() == [0.0, 2.0, 4.0]


def test_static_fields_are_structure_and_never_leaves():
    assert "layer" not in trees.leaves(layer())
    assert trees.structure(layer()) == trees.structure(layer())
    assert trees.structure(layer()) != trees.structure(layer("another"))
    assert trees.tree_map(lambda leaf: leaf, layer("kept")).name == "kept"


def test_a_node_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer().weight = torch.zeros(1)


def test_none_is_an_empty_subtree():
    assert trees.leaves({"a": None, "b": (None, 1)}) == [1]


@given(nested)
@settings(max_examples=100, deadline=None)
def test_flatten_and_unflatten_are_inverse(tree):
    leaf_list, spec = trees.flatten(tree)
    assert trees.unflatten(spec, leaf_list) == tree


@given(nested)
@settings(max_examples=200, deadline=None)
def test_no_two_leaves_share_a_path(tree):
    paths = trees.paths(tree)
    assert len(paths) == len(trees.leaves(tree))
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    ("left", "right"),
    [({"a/b": 1}, {"a": {"b": 1}}), ({"a\\": {"b": 1}}, {"a\\/b": 1}), ({"": {"": 1}}, {"/": 1})],
)
def test_a_separator_inside_a_key_is_not_a_level(left, right):
    assert trees.paths(left) != trees.paths(right)


def test_keys_that_read_the_same_are_refused():
    with pytest.raises(ValueError, match=r"two leaves of the tree have the name 'm/0'.*Rename one"):
        trees.paths({"m": {0: 1, "0": 2}})


def test_paths_name_fields_keys_and_indices_in_the_order_of_the_leaves():
    value = layer()
    assert trees.paths(value) == ["weight", "children/b", "children/c/0"]
    assert [id(leaf) for _, leaf in trees.leaves_with_paths(value)] == [id(leaf) for leaf in trees.leaves(value)]


def test_the_order_of_a_dictionary_is_not_structure():
    assert trees.structure({"a": 1, "b": 2}) == trees.structure({"b": 2, "a": 1})
    assert trees.leaves({"b": 2, "a": 1}) == [1, 2]


def test_nbytes_counts_tensors_only():
    assert trees.nbytes({"x": torch.zeros(3, dtype=torch.float64), "n": 7, "b": torch.ones(2, dtype=torch.bool)}) == 26
    assert len(trees.tensors([torch.zeros(1), 2, "three"])) == 1
