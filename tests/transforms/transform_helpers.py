"""Tiny networks in float64, and their dense derivatives by torch.func alone."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import functrain as ft


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(2, 6), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x.view(len(x), 2, 2)).unsqueeze(1).chunk(3, -1)  # one head
        return self.head(F.scaled_dot_product_attention(q, k, v).mean((1, 2)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 3)),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 3)),
    "attention": Attention,
    "partly frozen": lambda: nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.Tanh(), nn.Linear(3, 3)),
}


def make_state(net: nn.Module | str = "mlp", objective: Any = None, optimizer: Any = None, **options: Any) -> Any:
    torch.manual_seed(4)
    module = NETWORKS[net]() if isinstance(net, str) else net
    options = {"precision": "fp64", **options}
    return ft.init_state(module, objective or ft.classification(), optimizer or ft.optim.sgd(0.1), **options)


def make_batches(*sizes: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(size, 4, generator=generator).double() for size in sizes]
    return [(x, torch.randint(3, (len(x),), generator=generator)) for x in inputs]


def loss_by_hand(state: Any, batches: list[tuple[Tensor, Tensor]]) -> Callable[[Tensor], Tensor]:
    """The mean cross-entropy as a function of one vector of the trainable parameters."""
    module = ft.to_module(state).eval()
    trainable = {name: p for name, p in state.params.items() if name in state.recipe.network.trainable}
    inputs, labels = (torch.cat(parts) for parts in zip(*batches))

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in trainable.values()])
        params = {name: part.view_as(p) for (name, p), part in zip(trainable.items(), parts)}
        with sdpa_kernel(SDPBackend.MATH):
            return F.cross_entropy(torch.func.functional_call(module, params, (inputs,)), labels)

    return loss


def flat(tree: dict[str, Tensor]) -> Tensor:
    return torch.cat([leaf.flatten() for leaf in tree.values()])


def trainable(state: Any) -> dict[str, Tensor]:
    return {name: state.params[name] for name in state.recipe.network.trainable}


def unflat(vector: Tensor, state: Any) -> dict[str, Tensor]:
    like = trainable(state)
    parts = vector.split([p.numel() for p in like.values()])
    return {name: part.view_as(p) for (name, p), part in zip(like.items(), parts)}


def dense_hessian(state: Any, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.func.hessian(loss_by_hand(state, batches))(flat(trainable(state)))
