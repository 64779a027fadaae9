"""The gradient is torch.func's to the bit, with less machinery."""

import torch
from torch import nn

import functrain as ft
from functrain.step.gradient import differentiate


def test_gradients_are_those_of_torch_func_and_the_same_within_a_transform():
    params = {"w": torch.randn(4, 3, dtype=torch.float64), "unused": torch.ones(2, dtype=torch.float64)}
    x = torch.randn(5, 4, dtype=torch.float64)

    def fn(params):
        hidden = torch.tanh(x @ params["w"])
        return hidden.pow(2).sum(), hidden

    grads, used, aux = differentiate(fn, params)
    assert used == (True, False)
    expected, (_, expected_aux) = torch.func.grad_and_value(fn, has_aux=True)(params)
    assert torch.equal(grads["w"], expected["w"])
    assert torch.equal(grads["unused"], torch.zeros(2, dtype=torch.float64))
    assert torch.equal(aux, expected_aux)
    assert not aux.requires_grad
    assert not any(p.requires_grad for p in params.values())

    stacked = {name: torch.stack([p, 2 * p]) for name, p in params.items()}
    found = []

    def mapped_gradient(p):
        grads, used, _ = differentiate(fn, p)
        found.append(used)
        return grads

    mapped = torch.vmap(mapped_gradient)(stacked)
    assert found == [(True, False)]
    torch.testing.assert_close(mapped["w"][0], grads["w"], rtol=1e-12, atol=1e-12)


def test_a_loss_that_does_not_depend_on_the_parameters_has_gradient_zero():
    grads, used, _ = differentiate(lambda p: (torch.ones(()), ()), {"w": torch.ones(3)})
    assert used == (False,)
    assert torch.equal(grads["w"], torch.zeros(3))


def test_a_module_with_hooks_trains_as_it_does_in_torch():
    """A backward hook that doubles the gradient, and a forward hook that halves the output."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).double()
    model[1].register_full_backward_hook(lambda module, grad_in, grad_out: (2 * grad_in[0],))
    model[1].register_forward_hook(lambda module, args, output: output / 2)
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    state = ft.init_state(model, ft.supervised(nn.functional.mse_loss), ft.optim.sgd(0.1), precision="fp64")
    after, _ = ft.train_step(state, (x, y))
    compiled, _ = ft.compile(ft.train_step, backend="eager")(state, (x, y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nn.functional.mse_loss(model(x), y).backward()
    optimizer.step()
    for result in (after, compiled):
        for name, p in model.named_parameters():
            torch.testing.assert_close(result.params[name], p.detach(), rtol=1e-12, atol=1e-12)
