"""What a step asks of the processes that train one state together.

A step knows nothing else of them. How parameters are kept and gradients are summed (replicas, shards, an exact order of
summation) is a value of the recipe, which `functrain.distributed` puts there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from functrain.optim import global_norm


class Collectives(Protocol):
    """The processes that train one state, as one of them sees it. Immutable and hashable.

    Every process calls the same methods in the same order. All of them work inside a traced step.
    """

    @property
    def rank(self) -> int:
        """The number of this process. Its random draws differ from those of the others by it."""

    @property
    def ranks(self) -> int:
        """How many processes there are."""

    def gather(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The whole parameters, which the network computes with, from those in this process's state."""

    def reduce(self, grads: dict[str, Tensor], sums: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Sums over the processes.

        Args:
            grads: this process's gradients of the whole parameters.
            sums: other tensors.

        Returns:
            The summed gradients, as this process keeps the parameters; and the summed tensors, the same on all.
        """

    def norm(self, grads: dict[str, Tensor]) -> Tensor:
        """The global norm of reduced gradients, 0-d and the same on all. If any element is not finite, neither is it.

        With the reduced sum of the losses it decides whether an update is refused, so all processes decide alike.
        """


@dataclass(frozen=True)
class OneProcess:
    """A process alone. Nothing is sent, and nothing is added to a step's graph.

    Example:
        >>> OneProcess().reduce({}, [1])
        ({}, [1])
    """

    rank: int = 0
    ranks: int = 1

    def gather(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """They are whole."""
        return params

    def reduce(self, grads: dict[str, Tensor], sums: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """They are the sums."""
        return grads, list(sums)

    def norm(self, grads: dict[str, Tensor]) -> Tensor:
        """The norm of all gradients together."""
        return global_norm(grads)


ALONE = OneProcess()
