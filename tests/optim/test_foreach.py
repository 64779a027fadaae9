"""Foreach arithmetic equals a loop over the leaves, in every mode."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.optim.foreach import foreach

SHAPES = st.lists(st.lists(st.integers(0, 3), max_size=3).map(tuple), max_size=5)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


def random_leaves(shapes, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@given(shapes=SHAPES, dtype=DTYPES, factor=st.floats(-3, 3))
def test_a_0d_scalar_never_promotes_a_leaf(shapes, dtype, factor):
    leaves = random_leaves(shapes, dtype, 0)
    results = foreach("mul", leaves, torch.tensor(factor, dtype=torch.float64))
    assert [result.dtype for result in results] == [dtype] * len(leaves)
    for leaf, result in zip(leaves, results):
        # One rounding to the factor's nearest value in the leaf's arithmetic, one of the product.
        tolerance = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(result.double(), leaf.double() * factor, rtol=tolerance, atol=1e-40)


@given(shapes=SHAPES, seed=st.integers(0, 9))
def test_lists_pair_leaf_by_leaf(shapes, seed):
    left, right = random_leaves(shapes, torch.float64, seed), random_leaves(shapes, torch.float64, seed + 1)
    assert all(map(torch.equal, foreach("add", left, right), [a + b for a, b in zip(left, right)]))


def test_under_vmap_each_member_has_its_own_scalar():
    leaves, factors = [torch.ones(3, 2), torch.ones(3)], torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    matrix, scalar = torch.vmap(lambda leaves, factor: foreach("mul", leaves, factor))(leaves, factors)
    assert matrix.tolist() == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert scalar.tolist() == [1.0, 2.0, 3.0]
    assert scalar.dtype == torch.float32


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(RuntimeError, match="same number of tensors"):
        foreach("add", [torch.ones(1)], [torch.ones(1), torch.ones(1)])
