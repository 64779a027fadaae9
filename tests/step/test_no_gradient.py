"""Training that could change nothing is refused: inference mode, a loss without gradient, everything frozen."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.foundation.errors import FunctrainError

BATCH = torch.ones(4, 2), torch.zeros(4, 1)


def make_state(objective=None, optimizer=None, **options):
    return ft.init_state(nn.Linear(2, 1), objective or ft.regression(), optimizer or ft.optim.sgd(0.1), **options)


def detached(model, batch):
    return ft.Loss((model(batch[0]) - batch[1]).square().detach().sum(), len(batch[0]), {})


STEPS = [ft.train_step, ft.compile(ft.train_step, backend="eager")]


@pytest.mark.parametrize("step", STEPS, ids=["eager", "compiled"])
def test_inference_mode_is_refused_and_no_grad_is_not(step):
    state = make_state()
    with torch.inference_mode(), pytest.raises(FunctrainError, match=r"inside torch\.inference_mode"):
        step(state, BATCH)
    with torch.no_grad():
        one = step(state, BATCH)
    assert ft.diff_states(one, step(state, BATCH)) == []
    assert not torch.equal(one[0].params["weight"], state.params["weight"])


def test_neither_a_state_nor_a_fit_begins_in_inference_mode():
    with torch.inference_mode(), pytest.raises(FunctrainError, match=r"inside torch\.inference_mode"):
        make_state()
    state = make_state()
    with torch.inference_mode(), pytest.raises(FunctrainError, match=r"inside torch\.inference_mode"):
        ft.fit(state, [BATCH], epochs=1, compile=False, progress=False)


@pytest.mark.parametrize("compiled", [False, True])
def test_evaluation_in_inference_mode_is_as_outside(compiled):
    state, step = make_state(), ft.compile(ft.eval_step, backend="eager") if compiled else ft.eval_step
    with torch.inference_mode():
        inside = step(state, BATCH).means()["loss"].item()
    assert inside == ft.eval_step(state, BATCH).means()["loss"].item()


@pytest.mark.parametrize("step", STEPS, ids=["eager", "compiled"])
def test_a_loss_without_gradient_is_refused(step):
    with pytest.raises(FunctrainError, match="does not depend on any trainable parameter"):
        step(make_state(detached), BATCH)


def test_under_a_vmap_too():
    state = make_state(detached)
    with pytest.raises(FunctrainError, match="does not depend on any trainable parameter"):
        torch.func.vmap(lambda x: ft.train_step(state, (x, BATCH[1]))[1]["loss"])(BATCH[0].expand(2, 4, 2))


def test_a_loss_of_weight_zero_needs_none():
    state = make_state(lambda model, batch: ft.Loss(torch.zeros(()), torch.zeros(()), {}))
    after, _ = ft.train_step(state, BATCH)
    assert torch.equal(after.params["weight"], state.params["weight"])


@pytest.mark.parametrize(
    "optimizer",
    [
        ft.optim.freeze(),
        ft.optim.partition({"weight": ft.optim.freeze(), "*": ft.optim.freeze()}),
        ft.optim.chain(ft.optim.adamw(0.1), ft.optim.masked(ft.optim.freeze(), lambda path, leaf: True)),
    ],
    ids=["freeze", "partition", "masked"],
)
def test_an_optimizer_that_freezes_everything_is_refused(optimizer):
    with pytest.raises(ValueError, match="freezes every parameter"):
        make_state(optimizer=optimizer)


def test_one_that_freezes_a_part_is_not():
    state = make_state(optimizer=ft.optim.partition({"weight": ft.optim.freeze(), "*": ft.optim.sgd(0.1)}))
    after, _ = ft.train_step(state, BATCH)
    assert torch.equal(after.params["weight"], state.params["weight"])
    assert not torch.equal(after.params["bias"], state.params["bias"])
