"""Curvature: products, eigenvalues and trace are those of the dense Hessian."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transform_helpers import NETWORKS, dense_hessian, flat, make_batches, make_state, unflat

import functrain as ft

TIGHT = {"rtol": 1e-11, "atol": 1e-12}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_product_is_that_with_the_dense_hessian(network: str) -> None:
    state, [batch] = make_state(network), make_batches(7)
    hessian = dense_hessian(state, [batch])
    rows = [flat(ft.transforms.hvp(state, batch, unflat(row, state))) for row in torch.eye(len(hessian)).double()]
    torch.testing.assert_close(torch.stack(rows), hessian, **TIGHT)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_products_are_linear_and_symmetric(seed: int, a: float, b: float) -> None:
    state, [batch] = make_state(), make_batches(5)
    generator = torch.Generator().manual_seed(seed)
    size = len(flat(state.params))
    u, v = torch.randn(2, size, generator=generator).double()

    def product(vector: Tensor) -> Tensor:
        return flat(ft.transforms.hvp(state, batch, unflat(vector, state)))

    torch.testing.assert_close(u @ product(v), v @ product(u), **TIGHT)
    torch.testing.assert_close(product(a * u + b * v), a * product(u) + b * product(v), **TIGHT)


@pytest.mark.parametrize("network", ["mlp", "attention"])
def test_the_eigenvalues_over_uneven_batches_are_those_of_the_dense_hessian(network: str) -> None:
    state, batches = make_state(network), make_batches(5, 3, 1)
    values, vectors = torch.linalg.eigh(dense_hessian(state, batches))
    found = ft.transforms.top_eigenvalues(state, batches, 3, tolerance=1e-8)
    torch.testing.assert_close(found.values, values.flip(0)[:3], rtol=1e-9, atol=1e-10)
    assert (found.residuals <= 1e-8 * values.abs().max()).all()
    for number, vector in enumerate(found.vectors):
        torch.testing.assert_close(abs(flat(vector) @ vectors[:, -1 - number]), torch.ones(()).double(), **TIGHT)


def test_residuals_say_how_near_an_eigenvalue_is() -> None:
    state, batches = make_state(), make_batches(6)
    hessian = dense_hessian(state, batches)
    found = ft.transforms.top_eigenvalues(state, batches, 2, max_steps=4)
    assert found.steps == 4
    for value, vector, residual in zip(found.values, found.vectors, found.residuals):
        error = (hessian @ flat(vector) - value * flat(vector)).norm()
        torch.testing.assert_close(error, residual, rtol=1e-8, atol=1e-12)
        assert (torch.linalg.eigvalsh(hessian) - value).abs().min() <= residual + 1e-12


def test_the_trace_is_the_sum_of_all_eigenvalues_double_ones_included() -> None:
    state, batches = make_state("partly frozen"), make_batches(6, 2)
    size = 12
    found = ft.transforms.top_eigenvalues(state, batches, size, tolerance=0.0)
    hessian = dense_hessian(state, batches)
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(hessian).flip(0), rtol=1e-9, atol=1e-11)
    basis = [flat(ft.transforms.hvp(state, batches[0], unflat(e, state))) for e in torch.eye(size).double()]
    alone = ft.transforms.top_eigenvalues(state, batches[:1], size, tolerance=0.0)
    torch.testing.assert_close(torch.stack(basis).trace(), alone.values.sum(), rtol=1e-9, atol=1e-11)


def test_a_hessian_with_one_eigenvalue_has_it_as_often_as_there_are_parameters() -> None:
    state = make_state(nn.Linear(4, 1, bias=False), ft.regression())
    batch = (torch.eye(4).double() * 2, torch.zeros(4, 1).double())  # 2 / 4 x 4 I
    found = ft.transforms.top_eigenvalues(state, [batch], 4)
    torch.testing.assert_close(found.values, torch.full((4,), 2.0).double(), **TIGHT)
    assert torch.allclose(
        torch.stack([flat(vector) for vector in found.vectors]) @ flat(found.vectors[0]),
        torch.tensor([1.0, 0, 0, 0]).double(),
        atol=1e-9,
    )


def test_the_trace_lies_within_its_standard_error_and_is_exact_for_a_diagonal() -> None:
    state, batches = make_state(), make_batches(6, 4)
    hessian = dense_hessian(state, batches)
    found = ft.transforms.hutchinson_trace(state, batches, samples=200)
    assert abs(found.value - hessian.trace().item()) < 4 * found.standard_error
    off = hessian - torch.diag(hessian.diag())
    assert found.standard_error == pytest.approx((2 * off.square().sum().item() / 200) ** 0.5, rel=0.3)
    assert found == ft.transforms.hutchinson_trace(state, batches, samples=200)
    assert found != ft.transforms.hutchinson_trace(state, batches, samples=200, seed=1)


def test_products_can_be_compiled() -> None:
    state, [batch] = make_state(), make_batches(5)
    vector = unflat(torch.ones(len(flat(state.params))).double(), state)
    compiled = ft.compile(ft.transforms.hvp, backend="aot_eager")
    torch.testing.assert_close(flat(compiled(state, batch, vector)), flat(ft.transforms.hvp(state, batch, vector)))


def test_a_loss_without_curvature_has_none() -> None:
    state = make_state(nn.Linear(4, 1, bias=False), lambda model, batch: ft.Loss(model(batch[0]).sum(), 1.0))
    found = ft.transforms.hvp(state, make_batches(3)[0], {"weight": torch.ones(1, 4)})
    assert torch.equal(found["weight"], torch.zeros(1, 4).double())


def test_wrong_arguments_are_refused() -> None:
    state, batches = make_state(), make_batches(3)
    with pytest.raises(ValueError, match=r"vector must have a tensor for each trainable parameter \(0.weight"):
        ft.transforms.hvp(state, batches[0], {})
    with pytest.raises(ValueError, match=r"vector\['0.weight'\] must have the parameter's shape \[3, 4\]; got \[1\]"):
        ft.transforms.hvp(state, batches[0], {name: torch.zeros(1) for name in state.params})
    with pytest.raises(ValueError, match="k must be a whole number from 1 to the 27"):
        ft.transforms.top_eigenvalues(state, batches, 28)
    with pytest.raises(TypeError, match="gives its batches only once"):
        ft.transforms.top_eigenvalues(state, iter(batches))
    with pytest.raises(ft.errors.DataError, match="no batch"):
        ft.transforms.hutchinson_trace(state, [])
