"""What a model's own code reads in the backward pass are the state's parameters, as in torch."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import functrain as ft


class Product(torch.autograd.Function):
    """`x @ module.w`, whose backward pass reads the module's parameter."""

    @staticmethod
    def forward(ctx, x, module):
        ctx.module = module
        return x @ module.w

    @staticmethod
    def backward(ctx, grad):
        return grad @ ctx.module.w.t(), None


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.block, self.head = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Tanh()), nn.Linear(3, 1)
        self.w = nn.Parameter(torch.full((3, 1), 0.7), requires_grad=False)

    def forward(self, x):
        return self.head(self.middle(self.first(x)))


class Plain(Base):
    def middle(self, x):
        return self.block(x)


class Checkpointed(Base):
    def middle(self, x):
        return checkpoint(self.block, x, use_reentrant=False)


class InSequence(Base):
    def middle(self, x):
        return checkpoint_sequential(self.block, 2, x, use_reentrant=False)


class Hooked(Plain):
    def __init__(self):
        super().__init__()
        self.block[0].register_full_backward_hook(lambda module, grads, _: (grads[0] * module.weight.norm(),))


class Function(Base):
    def forward(self, x):
        return Product.apply(self.block(self.first(x)), self)


X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BATCH = X, X.sum(1, keepdim=True)


@pytest.mark.parametrize("backend", [None, "eager"], ids=["eager", "traced"])
@pytest.mark.parametrize("kind", [Plain, Checkpointed, InSequence, Hooked, Function])
def test_the_gradient_is_torchs(kind, backend):
    model = kind().double()
    step = ft.train_step if backend is None else ft.compile(ft.train_step, backend=backend)
    state = ft.init_state(model, ft.regression(), ft.optim.sgd(1.0), precision="fp64")
    after, _ = step(state, BATCH)
    reference = copy.deepcopy(model)
    nn.functional.mse_loss(reference(X), BATCH[1]).backward()
    for name, p in reference.named_parameters():
        expected = p.detach() if p.grad is None else p.detach() - p.grad
        torch.testing.assert_close(after.params[name], expected, rtol=1e-12, atol=1e-12)


def test_the_network_holds_no_tensors_after_the_step():
    state = ft.init_state(Checkpointed(), ft.regression(), ft.optim.sgd(1.0), precision="fp64")
    ft.train_step(state, BATCH)
    assert all(p.is_meta for _, module in state.recipe.network.running() for p in module.parameters())
