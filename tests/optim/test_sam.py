"""SAM's ascent against its definition, and what it finds in an optimizer's state."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optim_helpers import gradients, make_params

from functrain import optim


def distance(left, right):
    return optim.global_norm({name: left[name] - right[name] for name in left}).item()


@given(rho=st.floats(1e-4, 10), seed=st.integers(0, 99))
def test_the_ascent_goes_rho_along_the_gradient(rho, seed):
    params = make_params(seed=seed)
    grads = gradients(params, seed)
    moved = optim.sam_ascent(params, grads, rho)
    assert distance(moved, params) == pytest.approx(rho, rel=1e-9)
    norm = optim.global_norm(grads)
    expected = {name: params[name] + rho * grads[name] / norm for name in params}
    torch.testing.assert_close(moved, expected, rtol=1e-11, atol=1e-12)


@given(factor=st.floats(0.1, 10))
def test_the_adaptive_ascent_is_the_same_of_rescaled_parameters(factor):
    params = make_params()
    grads = gradients(params, 0)
    moved = optim.sam_ascent(params, grads, 0.5, adaptive=True)
    rescaled = {name: leaf * factor for name, leaf in params.items()}
    slopes = {name: grad / factor for name, grad in grads.items()}
    again = optim.sam_ascent(rescaled, slopes, 0.5, adaptive=True)
    torch.testing.assert_close(again, {name: leaf * factor for name, leaf in moved.items()}, rtol=1e-10, atol=1e-11)


def test_a_zero_gradient_moves_nothing_and_dtypes_are_kept():
    params = {"w": torch.ones(2, dtype=torch.bfloat16), "s": torch.tensor(1.0)}
    zeros = {name: torch.zeros_like(leaf) for name, leaf in params.items()}
    moved = optim.sam_ascent(params, zeros)
    assert all(torch.equal(moved[name], params[name]) for name in params)
    assert {name: leaf.dtype for name, leaf in moved.items()} == {name: leaf.dtype for name, leaf in params.items()}


def test_a_radius_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="rho must be a finite number > 0, got 0"):
        optim.sam_ascent({}, {}, 0)


def test_the_ascent_of_a_state_is_that_of_its_sam_wherever_it_stands():
    params = make_params()
    grads = gradients(params, 0)
    expected = optim.sam_ascent(params, grads, 0.3)
    for optimizer in (
        optim.sam(optim.sgd(), 0.3),
        optim.chain(optim.clip_by_global_norm(1.0), optim.sam(optim.adamw(), 0.3)),
        optim.lookahead(optim.sam(optim.sgd(), 0.3)),
        optim.partition({"*": optim.sam(optim.sgd(), 0.3)}),
    ):
        moved = optim.ascended_params(optimizer.init(params), params, grads)
        assert all(torch.equal(moved[name], expected[name]) for name in params)
    assert optim.ascended_params(optim.adamw().init(params), params, grads) is params


def test_in_a_group_it_moves_that_groups_parameters_alone_by_their_own_norm():
    params = make_params()
    grads = gradients(params, 0)
    optimizer = optim.partition(
        {"matrix": optim.sam(optim.sgd(), 0.3), "w*": optim.sam(optim.sgd(), 0.1), "*": optim.sgd()}
    )
    moved = optim.ascended_params(optimizer.init(params), params, grads)
    for name, rho in (("matrix", 0.3), ("wide", 0.1), ("bias", 0.0)):
        assert distance({name: moved[name]}, {name: params[name]}) == pytest.approx(rho, rel=1e-9)


def test_a_state_of_other_parameters_is_refused():
    state = optim.sam(optim.sgd()).init({"v": torch.ones(1)})
    with pytest.raises(ValueError, match=r"parameters that are not there: \['v'\]"):
        optim.ascended_params(state, {"w": torch.ones(1)}, {"w": torch.ones(1)})
