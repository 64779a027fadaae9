"""Norms and clipping against torch.nn.utils."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import optim


def random_tree(seed, dtype=torch.float64, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: size * torch.randn(shape, generator=generator, dtype=dtype)
        for name, shape in {"w": (4, 3), "b": (5,), "s": (), "none": (0,)}.items()
    }


def as_parameters(tree):
    parameters = [torch.nn.Parameter(torch.zeros_like(leaf)) for leaf in tree.values()]
    for parameter, leaf in zip(parameters, tree.values()):
        parameter.grad = leaf.clone()
    return parameters


@given(seed=st.integers(0, 1000), size=st.sampled_from([1e-8, 0.1, 1.0, 1e6]), max_norm=st.floats(1e-3, 1e3))
def test_clipping_by_global_norm_equals_clip_grad_norm(seed, size, max_norm):
    tree = random_tree(seed, size=size)
    parameters = as_parameters(tree)
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    clipped, _ = optim.clip_by_global_norm(max_norm).update(tree, (), tree)
    torch.testing.assert_close(optim.global_norm(tree), norm, rtol=1e-14, atol=0)
    for leaf, parameter in zip(clipped.values(), parameters):
        torch.testing.assert_close(leaf, parameter.grad, rtol=1e-14, atol=0)


@given(seed=st.integers(0, 1000), value=st.floats(1e-3, 10))
def test_clipping_by_value_equals_clip_grad_value(seed, value):
    tree = random_tree(seed)
    parameters = as_parameters(tree)
    torch.nn.utils.clip_grad_value_(parameters, value)
    clipped, _ = optim.clip_by_value(value).update(tree, (), tree)
    assert all(torch.equal(leaf, parameter.grad) for leaf, parameter in zip(clipped.values(), parameters))


@pytest.mark.parametrize(
    ("leaf_dtypes", "norm_dtype"),
    [
        ([torch.float32], torch.float32),
        ([torch.bfloat16, torch.float16], torch.float32),
        ([torch.float32, torch.float64], torch.float64),
        ([], torch.float32),
    ],
)
def test_the_norms_dtype_is_float32_or_wider(leaf_dtypes, norm_dtype):
    leaves = [torch.full((4,), 2.0, dtype=dtype) for dtype in leaf_dtypes]
    norm = optim.global_norm(leaves)
    assert (norm.dtype, norm.ndim) == (norm_dtype, 0)
    assert norm.item() == pytest.approx(math.sqrt(16 * len(leaves)), rel=1e-6)


def test_the_norm_of_half_precision_gradients_does_not_overflow():
    assert optim.global_norm([torch.full((4,), 60000.0, dtype=torch.float16)]).item() == 120000.0


def test_the_norm_of_a_large_float32_leaf_is_right_to_the_last_digits():
    leaf = torch.randn(2**23, generator=torch.Generator().manual_seed(0)) + 1
    # Pairwise summation: about log2(n) = 23 roundings of 6e-8 at worst, halved by the root.
    assert optim.global_norm([leaf]).item() == pytest.approx(leaf.double().norm().item(), rel=7e-7)


def test_zero_gradients_stay_zero():
    clipped, _ = optim.clip_by_global_norm(1.0).update({"w": torch.zeros(3)}, (), {})
    assert clipped["w"].tolist() == [0.0, 0.0, 0.0]


def test_dtypes_are_kept():
    tree = {
        "half": torch.ones(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(1.0),
        "w": torch.ones(2).double(),
    }
    for transform in (optim.clip_by_global_norm(0.5), optim.clip_by_value(0.5)):
        clipped, _ = transform.update(tree, (), tree)
        assert {name: leaf.dtype for name, leaf in clipped.items()} == {n: t.dtype for n, t in tree.items()}


@pytest.mark.parametrize("make", [optim.clip_by_global_norm, optim.clip_by_value])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_threshold_that_is_not_positive_is_refused(make, value):
    with pytest.raises(ValueError, match="must be a finite number > 0"):
        make(value)


@pytest.mark.parametrize("value", [1e18, 1e25, 3e37])
@pytest.mark.parametrize("traced", [False, True])
def test_squares_that_overflow_do_not_make_the_norm_infinite(value, traced):
    """The norm of n equal numbers is their magnitude times the root of n."""
    tree = {"a": torch.full((8, 8), value), "b": torch.full((17,), -value), "small": torch.ones(3)}
    norm = make_fx(optim.global_norm)(tree)(tree) if traced else optim.global_norm(tree)
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(value * 9.0, rel=2e-7)
    clipped, _ = optim.clip_by_global_norm(1.0).update(tree, (), tree)
    assert optim.global_norm(clipped).item() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_a_norm_of_what_is_not_finite_is_not_finite(bad):
    assert not optim.global_norm({"a": torch.tensor([1e25, bad])}).isfinite()


def test_the_norm_under_a_vmap_is_each_ones():
    stacked = torch.stack([torch.full((4,), 1e25), torch.full((4,), 3.0)])
    norms = torch.vmap(lambda leaf: optim.global_norm({"a": leaf}))(stacked)
    torch.testing.assert_close(norms, torch.tensor([2e25, 6.0]), rtol=2e-7, atol=0)
