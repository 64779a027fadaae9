"""Influence: what leaving an example out does to a convex model, by training again."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transform_helpers import dense_hessian, flat, make_batches, make_state

import functrain as ft
from functrain.errors import FunctrainError
from functrain.transforms.conjugate_gradients import solve

PENALTY = 0.05


def logistic(seed: int = 0) -> Any:
    """Logistic regression with a penalty on each example's share, so that the minimum is one point."""
    terms = {"cross_entropy": ft.term("cross_entropy"), "penalty": ft.l2_penalty()}
    objective = ft.weighted_sum(terms, {"penalty": PENALTY})
    torch.manual_seed(seed)
    return ft.init_state(nn.Linear(4, 3), objective, ft.optim.sgd(0.1), precision="fp64")


def batch_of(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    [(inputs, labels)] = make_batches(count, seed=seed)
    return inputs, labels, torch.ones(count).double()


def at_minimum(state: Any, batch: Any) -> Any:
    """Newton's method with dense Hessians."""
    for _ in range(12):
        size = sum(p.numel() for p in state.params.values())
        basis = torch.eye(size).double()
        like = state.params

        def named(vector: Tensor, like: Any = like) -> dict[str, Tensor]:
            parts = vector.split([p.numel() for p in like.values()])
            return {name: part.view_as(p) for (name, p), part in zip(like.items(), parts)}

        hessian = torch.stack([flat(ft.transforms.hvp(state, batch, named(row))) for row in basis])
        grads = ft.transforms.per_sample_gradients(state, batch)
        slope = flat({name: grad.sum(0) for name, grad in grads.items()}) / batch[2].sum()
        step = named(torch.linalg.solve(hessian, slope))
        state = state.replace(params={name: p - step[name] for name, p in state.params.items()})
    return state


def loss_of(state: Any, batch: Any) -> float:
    return ft.eval_step(state, batch).means()["loss"].item()


def test_it_is_the_derivative_of_the_test_loss_by_an_examples_weight() -> None:
    train, test = batch_of(20), batch_of(6, seed=1)
    state = at_minimum(logistic(), train)
    found = ft.transforms.influence(state, [train], test, damping=0.0, tolerance=1e-10)
    h = 1e-4
    for row in (0, 7, 19):
        losses = []
        for change in (h, -h):
            weight = train[2].clone()
            weight[row] += change
            losses.append(loss_of(at_minimum(state, (*train[:2], weight)), test))
        # More weight lowers the test loss by what leaving the example out would raise it.
        slope = -(losses[0] - losses[1]) / (2 * h)
        assert found.values[row].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_it_predicts_training_again_without_an_example() -> None:
    """To first order: what is missing falls with the square of the example's share, so 9 times for a third of it."""
    train, test = batch_of(60), batch_of(6, seed=1)
    state = at_minimum(logistic(), train)
    found = ft.transforms.influence(state, [train], test, damping=0.0, tolerance=1e-10).values
    before, rows = loss_of(state, test), found.abs().topk(8).indices.tolist()
    errors, rises = [], []
    for share in (1.0, 1 / 3):
        for row in rows:
            weight = train[2].clone()
            weight[row] -= share
            rises.append(loss_of(at_minimum(state, (*train[:2], weight)), test) - before)
            errors.append(rises[-1] - share * found[row].item())
    without, predicted = torch.tensor(rises[:8]).double(), found[rows]
    assert torch.corrcoef(torch.stack([predicted, without]))[0, 1] > 0.99
    whole, third = torch.tensor(errors).view(2, 8).norm(dim=1)
    assert third * 7 < whole < third * 13


def test_it_does_not_depend_on_the_batches() -> None:
    train, test = batch_of(10), batch_of(4, seed=1)
    state = at_minimum(logistic(), train)
    parts = list(zip(*(part.split([4, 1, 5]) for part in train)))
    whole = ft.transforms.influence(state, [train], test, tolerance=1e-12).values
    split = ft.transforms.influence(state, parts, test, tolerance=1e-12, chunk_size=1).values
    torch.testing.assert_close(split, whole, rtol=1e-9, atol=1e-13)


def test_damping_solves_the_damped_system_of_a_network() -> None:
    state, [train, test] = make_state(), make_batches(6, 3)
    hessian = dense_hessian(state, [train])
    damping = 1.0 - min(0.0, torch.linalg.eigvalsh(hessian)[0].item())
    found = ft.transforms.influence(state, [train], test, damping=damping, tolerance=1e-12)
    grads = torch.cat([g.flatten(1) for g in each_gradient(state, train).values()], 1)
    slope = torch.cat([g.flatten(1) for g in each_gradient(state, test).values()], 1).mean(0)
    expected = grads @ torch.linalg.solve(hessian + damping * torch.eye(len(hessian)).double(), slope) / 6
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    assert found.residual <= 1e-12


def each_gradient(state: Any, batch: Any) -> dict[str, Tensor]:
    module = ft.to_module(state).eval()
    rows = []
    for x, y in zip(*batch):
        loss = nn.functional.cross_entropy(module(x[None]), y[None])
        rows.append(torch.autograd.grad(loss, list(module.parameters())))
    names = [name for name, _ in module.named_parameters()]
    return {name: torch.stack([row[i] for row in rows]) for i, name in enumerate(names)}


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(5, 5, generator=generator).double()
    matrix, right = factor @ factor.T, torch.randn(5, generator=generator).double()
    found = solve(lambda v: {"w": matrix @ v["w"]}, {"w": right}, damping=0.5, tolerance=1e-10, max_steps=50)
    expected = torch.linalg.solve(matrix + 0.5 * torch.eye(5).double(), right)
    torch.testing.assert_close(found.vector["w"], expected, rtol=1e-8, atol=1e-10)
    assert found.steps <= 7
    cut = solve(lambda v: {"w": matrix @ v["w"]}, {"w": right}, damping=0.5, tolerance=1e-10, max_steps=2)
    error = (right - (matrix + 0.5 * torch.eye(5).double()) @ cut.vector["w"]).norm() / right.norm()
    assert cut.residual == pytest.approx(error.item(), rel=1e-8)


def test_negative_curvature_is_refused_with_what_to_do() -> None:
    with pytest.raises(FunctrainError, match=r"not positive definite.*-1.*Raise damping by more than 1"):
        solve(lambda v: {"w": -v["w"]}, {"w": torch.ones(2)}, damping=0.0, tolerance=1e-6, max_steps=5)
    with pytest.raises(ValueError, match="damping must be a finite number >= 0"):
        ft.transforms.influence(logistic(), [batch_of(3)], batch_of(2), damping=-1.0)
