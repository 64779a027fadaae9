"""Foreach arithmetic equals a loop over the leaves, in every mode."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.optim.foreach import add_scaled, average_squares, foreach, lerp, overwrite, sums_of_squares

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


@given(shapes=SHAPES, factor=st.floats(-3, 3), dtype=DTYPES)
def test_a_tensor_factor_equals_a_number(shapes, factor, dtype):
    left, right = random_leaves(shapes, dtype, 0), random_leaves(shapes, dtype, 1)
    scalar = torch.tensor(factor, dtype=torch.float64)
    # Three roundings each, of terms that may cancel.
    tolerance = 4 * torch.finfo(dtype).eps
    for function in (add_scaled, lerp, average_squares):
        by_number, by_tensor = function(left, right, factor), function(left, right, scalar)
        assert [leaf.dtype for leaf in by_tensor] == [dtype] * len(left)
        for one, other in zip(by_number, by_tensor):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=50 * tolerance)


@given(shapes=SHAPES, dtype=DTYPES)
def test_overwriting_gives_the_bits_of_a_fresh_result(shapes, dtype):
    left, right = random_leaves(shapes, dtype, 0), random_leaves(shapes, dtype, 1)
    expected = foreach("add", left, right)
    copies = [leaf.clone() for leaf in left]
    assert all(map(torch.equal, overwrite("add", copies, right), expected))


def test_overwriting_leaves_alone_what_autograd_may_need():
    leaf = torch.tensor([4.0], requires_grad=True)
    (root,) = overwrite("sqrt", [leaf * 1])
    (twice,) = overwrite("mul", [root], 2.0)
    twice.sum().backward()
    assert leaf.grad.tolist() == [0.5]


@given(shapes=SHAPES, dtype=DTYPES)
def test_sums_of_squares_are_those_of_the_leaves_in_float32_or_wider(shapes, dtype):
    leaves = random_leaves(shapes, dtype, 0)
    for total, leaf in zip(sums_of_squares(leaves), leaves):
        assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert total.item() == pytest.approx(leaf.double().square().sum().item(), rel=1e-6)
