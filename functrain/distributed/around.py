"""An `Exchange` around another one: what it does not do otherwise, the other does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from functrain.foundation.pieces import Piece
from functrain.step.collectives import Collectives, Exchange, Share
from functrain.step.state import Params, Part, TrainState

T = TypeVar("T")
M = TypeVar("M")


@dataclass(frozen=True, eq=False)
class Around:
    """Asks another exchange. The methods are those of `Exchange`.

    Attributes:
        inner: the other one.
    """

    inner: Exchange

    @property
    def rank(self) -> int:
        """The number of this process among those that share out the data."""
        return self.inner.rank

    @property
    def ranks(self) -> int:
        """How many processes share out the data."""
        return self.inner.ranks

    @property
    def processes(self) -> int:
        """How many there are in all."""
        return self.inner.processes

    @property
    def in_tree(self) -> bool:
        """Whether sums are exact."""
        return self.inner.in_tree

    @property
    def in_blocks(self) -> bool:
        """Whether passes gather parameters."""
        return self.inner.in_blocks

    @property
    def within(self) -> Collectives | None:
        """How an update sums within its graph; None: it does not."""
        return self.inner.within

    @property
    def compiles_passes(self) -> bool:
        """Whether a pass may be compiled."""
        return self.inner.compiles_passes

    @property
    def in_step(self) -> bool:
        """Whether passes send something."""
        return self.inner.in_step

    @property
    def is_in_pieces(self) -> bool:
        """Whether a kept state is in pieces: the rows of all processes, in their order, are the whole leaves."""
        return self.inner.is_in_pieces

    def share(self, accumulate: int) -> Share:
        """The micro-batches of a window that this process computes."""
        return self.inner.share(accumulate)

    def opened(self, params: Params) -> tuple[Params, Params]:
        """What the passes of a window compute with."""
        return self.inner.opened(params)

    def params(self, params: Params) -> Params:
        """The whole parameters."""
        return self.inner.params(params)

    def to_keep(self, part: Part) -> Part:
        """What a window keeps of a micro-batch."""
        return self.inner.to_keep(part)

    def sum(self, part: Part, counts: Sequence[int]) -> tuple[Part, list[int]]:
        """The sum over the processes."""
        return self.inner.sum(part, counts)

    def norm(self, grads: Params) -> Tensor:
        """The global norm of such gradients."""
        return self.inner.norm(grads)

    def to_update(self, state: TrainState, sums: T) -> tuple[TrainState, T]:
        """The state as the optimizer takes it."""
        return self.inner.to_update(state, sums)

    def updated(self, new: TrainState, metrics: M) -> tuple[TrainState, M]:
        """The state as it is kept, of one that the optimizer has updated."""
        return self.inner.updated(new, metrics)

    def to_evaluate(self, state: TrainState, *, ema: bool) -> TrainState:
        """The state with what an evaluation reads."""
        return self.inner.to_evaluate(state, ema=ema)

    def whole(self, state: TrainState) -> TrainState:
        """The state with whole leaves."""
        return self.inner.whole(state)

    def whole_on_first(self, state: TrainState) -> TrainState:
        """The state with whole leaves on process 0; on the others it is for no use."""
        return self.inner.whole_on_first(state)

    def in_pieces(self, state: TrainState, *, gathered_below: int = 0) -> TrainState:
        """The state with a `Piece` for each leaf that is cut."""
        return self.inner.in_pieces(state, gathered_below=gathered_below)

    def rows_on_first(self, piece: Piece, device: torch.device) -> Iterator[Tensor]:
        """The rows of all processes, on process 0."""
        return self.inner.rows_on_first(piece, device)

    def told_by_first(self, value: T) -> T:
        """What process 0 gives."""
        return self.inner.told_by_first(value)

    def kept(self, state: TrainState) -> TrainState:
        """A whole state as this process keeps it."""
        return self.inner.kept(state)
