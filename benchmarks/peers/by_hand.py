"""The loop that a careful user writes by hand, and the in-memory batches for all torch loops. Imports torch."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.gpt import next_token_loss
from benchmarks.peers.clock import Clock
from benchmarks.peers.networks import BETAS, EPS, LR, WEIGHT_DECAY, Network


def tensors(network: Network) -> tuple[Tensor, Tensor]:
    inputs, targets = network.arrays()
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def loss_fn(network: Network) -> Callable[[Tensor, Tensor], Tensor]:
    return next_token_loss if network.tokens else F.cross_entropy


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Torch's fastest."""
    return torch.optim.AdamW(model.parameters(), lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, fused=True)


class Batches(Dataset[Any]):
    """Whole batches by their rows: no framework pays for putting single examples together."""

    def __init__(self, network: Network, names: tuple[str, str] | None = None) -> None:
        self.inputs, self.targets = tensors(network)
        self.batch = network.batch
        self.names = names

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: Tensor) -> Any:
        assert len(rows) == self.batch, "a framework has changed the batches"
        batch = self.inputs[rows], self.targets[rows]
        return batch if self.names is None else dict(zip(self.names, batch))


class ShuffledRows:
    """A new permutation for each epoch, in pieces of a batch."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __len__(self) -> int:
        return self.network.steps

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.randperm(self.network.batch * self.network.steps).split(self.network.batch))


def loader(network: Network, names: tuple[str, str] | None = None) -> DataLoader[Any]:
    """The cheapest DataLoader there is, for frameworks that want one."""
    return DataLoader(Batches(network, names), batch_size=None, sampler=ShuffledRows(network))


def loop(network: Network, clock: Clock, rounds: int, *, compiled: bool) -> None:
    model, loss_of = network.model().train(), loss_fn(network)
    inputs, targets = tensors(network)
    optimizer = adamw(model)

    def forward(x: Tensor, y: Tensor) -> Tensor:
        return loss_of(model(x), y)

    step = torch.compile(forward) if compiled else forward
    for _ in range(rounds):
        clock.begin()
        for rows in ShuffledRows(network):
            loss = step(inputs[rows], targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        clock.end()
