"""What a step asks of the processes that train one state together.

A step knows nothing else of them. How parameters are kept and gradients are summed (replicas, shards, an exact order of
summation) is a value of the recipe, which `functrain.distributed` puts there: `Collectives` that work inside a step's
graph, or an `Exchange` between its phases.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from functrain.foundation.pieces import Piece
from functrain.optim import global_norm

if TYPE_CHECKING:
    from functrain.step.state import Part, TrainState

T = TypeVar("T")
M = TypeVar("M")


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


class Share(NamedTuple):
    """Which micro-batches of a window a process computes.

    Attributes:
        first: the number of its first one within the window.
        number: how many.
        stream: a number that its random draws differ by from those of other processes in one micro-batch.
    """

    first: int
    number: int
    stream: int


class Exchange(Protocol):
    """The processes that train one state, as one of them sees it between the phases of a step. Immutable.

    A state that is kept in shards has whole buffers and counters, and parts of other leaves: `whole` and `kept` turn
    one form into the other. Every process calls the same methods in the same order.
    """

    @property
    def rank(self) -> int:
        """The number of this process among those that share out the data."""

    @property
    def ranks(self) -> int:
        """How many processes share out the data."""

    @property
    def processes(self) -> int:
        """How many there are in all: more, where several compute with the same data."""

    @property
    def in_tree(self) -> bool:
        """Whether the micro-batches of a window are the leaves of one binary tree of sums, whoever computes them."""

    @property
    def in_blocks(self) -> bool:
        """Whether a pass gathers the parameters of some modules when these run."""

    @property
    def within(self) -> Collectives | None:
        """Sums over the processes that may stand in the graph of a window's last pass and update.

        None: the order of summation matters, or the update takes other leaves than the state has.
        """

    @property
    def compiles_passes(self) -> bool:
        """Whether a pass may be compiled: what it sends by itself, and when, is no part of a graph."""

    @property
    def in_step(self) -> bool:
        """Whether passes send something, so that all processes need as many micro-batches in each window."""

    def share(self, accumulate: int) -> Share:
        """The micro-batches of a window that this process computes."""

    def opened(self, params: dict[str, Tensor]) -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
        """What the passes of a window compute with, of the parameters in a kept state.

        Returns:
            The whole parameters, with a stand-in, which has a shape and no memory, for each that passes gather; and
            the shards of these.
        """

    def params(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The whole parameters, of those in a kept state."""

    def to_keep(self, part: "Part") -> "Part":
        """What a window keeps of a micro-batch, of which this process has the whole gradients.

        They may be sums over the processes already, of which this one keeps its shard. Where they are, the dictionary
        of those given may be emptied, for their memory.
        """

    def sum(self, part: "Part", counts: Sequence[int]) -> tuple["Part", list[int]]:
        """The sum over the processes.

        Args:
            part: this process's, as the window has it. The dictionary of its gradients may be emptied, for their
                memory.
            counts: other numbers. The first is that of micro-batches: a process without one takes no part in the sum.

        Returns:
            The sum, its gradients as the optimizer takes them; and the summed counts.
        """

    def norm(self, grads: dict[str, Tensor]) -> Tensor:
        """The global norm of such gradients, 0-d and the same on all."""

    def to_update(self, state: "TrainState", sums: T) -> "tuple[TrainState, T]":
        """The state and a window's sums, a tree, as the optimizer takes them, all on one device.

        No leaf shares memory with a kept state that lives on.
        """

    def updated(self, new: "TrainState", metrics: M) -> "tuple[TrainState, M]":
        """The state as it is kept, of one that the optimizer has updated; the update's metrics, a tree, beside it."""

    def to_evaluate(self, state: "TrainState", *, ema: bool) -> "TrainState":
        """The state with what an evaluation reads, whole and on the state's device; other leaves as they are kept."""

    def whole(self, state: "TrainState") -> "TrainState":
        """The state with whole leaves, equal on all processes."""

    def whole_on_first(self, state: "TrainState") -> "TrainState":
        """As `whole`, on process 0, which writes checkpoints; what the others get is for no use, and no larger."""

    @property
    def is_in_pieces(self) -> bool:
        """Whether a kept state is in pieces: the rows of all processes, in their order, are the whole leaves."""

    def in_pieces(self, state: "TrainState", *, gathered_below: int = 0) -> "TrainState":
        """A kept state with a `Piece` for each leaf that is cut, where it is kept.

        Args:
            state: the state as it is kept.
            gathered_below: cut leaves of fewer bytes are whole on process 0, and for no use on the others.
        """

    def rows_on_first(self, piece: Piece, device: torch.device) -> Iterator[Tensor]:
        """The rows of all processes in their order, some at a time, on process 0; nothing on the others, which send.

        Args:
            piece: this process's.
            device: where the processes send from.
        """

    def told_by_first(self, value: T) -> T:
        """What process 0 gives."""

    def kept(self, state: "TrainState") -> "TrainState":
        """A whole state as this process keeps it."""


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
