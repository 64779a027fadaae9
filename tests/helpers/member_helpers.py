"""Networks and data of the tests of stacks."""

import torch
from torch import nn

import functrain as ft
from functrain.foundation.trees import leaves


class Drawing(nn.Module):
    """A network that draws in several ways: masks, noise of the batch's shape, and noise of its own."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 3)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        h = self.drop(torch.tanh(self.inner(self.drop(x))))
        if self.training:
            h = (
                h
                + 0.1 * torch.randn_like(h)
                + 0.1 * torch.rand(8, dtype=h.dtype)
                + torch.empty_like(h).uniform_(0, 0.1)
            )
        return self.outer(h)


def member_state(number, make=Drawing, optimizer=None, objective=None, **options):
    """The state of a member, with parameters and a key of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(number)
        model = make()
    optimizer = optimizer or ft.optim.sgd(0.1 * (number + 1), momentum=0.9)
    return ft.init_state(
        model, objective or ft.classification(), optimizer, **{"seed": number, "precision": "fp64", **options}
    )


def random_batches(count, size=5, seed=0):
    """Batches of random examples."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 6, generator=generator, dtype=torch.float64),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def trained_alone(state, batches):
    for batch in batches:
        state, metrics = ft.train_step(state, batch)
    return state, metrics


def largest_difference(one, other):
    """The largest absolute difference of two states' tensors and host numbers."""
    found = [0.0]
    for left, right in zip(leaves(one), leaves(other), strict=True):
        if isinstance(left, torch.Tensor):
            different = torch.where(left == right, 0.0, (left.double() - right.double()).abs())  # infinities are equal
            found += [different.max().item()] * bool(left.numel())
        else:
            found.append(0.0 if left == right else abs(left - right))
    return max(found)


def relative_difference(one, other):
    """The largest difference of two states' tensors, relative to the largest element of each where that is above 1."""
    found = [0.0]
    for left, right in zip(leaves(one), leaves(other), strict=True):
        if isinstance(left, torch.Tensor) and left.numel():
            found.append(
                (left.double() - right.double()).abs().max().item() / max(1.0, left.double().abs().max().item())
            )
    return max(found)
