"""The optimizer's state in the CPU's memory, where updates are computed too.

    device   gradients of a window, their sum, its norm           parameters
                     | to page-locked memory                          ^
    CPU              v          optimizer's state, average: update -> |

The state never travels. Each update sends this process's gradients and parameters to the CPU, and the parameters back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from functrain.foundation.pieces import Piece
from functrain.foundation.trees import flatten, unflatten
from functrain.optim.averages import keeps_averages
from functrain.step.collectives import Exchange, Share
from functrain.step.state import Params, Part, TrainState

T = TypeVar("T")
M = TypeVar("M")
CPU = torch.device("cpu")


def moved(tree: T, device: torch.device) -> T:
    """The tree with its tensors on a device; those that are there stay as they are.

    From a GPU they come to page-locked memory, all of them before the host goes on: an update on the CPU reads them.

    Example:
        >>> moved({"w": torch.zeros(2), "step": 1}, torch.device("meta"))["w"].device
        device(type='meta')
    """
    leaf_list, spec = flatten(tree)
    found = [
        leaf if not isinstance(leaf, Tensor) or leaf.device == device else _sent(leaf, device) for leaf in leaf_list
    ]
    if device == CPU:
        for source in {leaf.device for leaf in leaf_list if isinstance(leaf, Tensor) and leaf.is_cuda}:
            torch.cuda.current_stream(source).synchronize()
    result: T = unflatten(spec, found)
    return result


def _sent(leaf: Tensor, device: torch.device) -> Tensor:
    if device == CPU and leaf.is_cuda and torch.cuda.is_available():
        return torch.empty_like(leaf, device=CPU, pin_memory=True).copy_(leaf, non_blocking=True)
    return leaf.to(device, non_blocking=leaf.is_cpu and device.type == "cuda")


@dataclass(frozen=True, eq=False)
class Offloaded:
    """An `Exchange` like another, whose optimizer's state and average are at rest on the CPU.

    Attributes:
        inner: how leaves are kept, and summed, otherwise.
        device: where the rest of the state is.
    """

    inner: Exchange
    device: torch.device

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
    def within(self) -> None:
        """An update is on another device than the sums."""

    @property
    def compiles_passes(self) -> bool:
        """Whether a pass may be compiled."""
        return self.inner.compiles_passes

    @property
    def in_step(self) -> bool:
        """Whether passes send something."""
        return self.inner.in_step

    def opened(self, params: Params) -> tuple[Params, Params]:
        """What the passes of a window compute with, on the device."""
        return self.inner.opened(params)

    def share(self, accumulate: int) -> Share:
        """The micro-batches of a window that this process computes."""
        return self.inner.share(accumulate)

    def params(self, params: Params) -> Params:
        """The whole parameters, on the device."""
        return self.inner.params(params)

    def to_keep(self, part: Part) -> Part:
        """What a window keeps of a micro-batch, on the device."""
        return self.inner.to_keep(part)

    def sum(self, part: Part, counts: Sequence[int]) -> tuple[Part, list[int]]:
        """The sum over the processes, on the device."""
        return self.inner.sum(part, counts)

    def norm(self, grads: Params) -> Tensor:
        """The global norm of such gradients."""
        return self.inner.norm(grads)

    def to_update(self, state: TrainState, sums: T) -> tuple[TrainState, T]:
        """The state and the sums on the CPU."""
        state, sums = self.inner.to_update(state, sums)
        return moved(state, CPU), moved(sums, CPU)

    def updated(self, new: TrainState, metrics: M) -> tuple[TrainState, M]:
        """All but the optimizer's state and the average on the device, as it is kept."""
        return self.inner.updated(self._at_rest(new), moved(metrics, self.device))

    def to_evaluate(self, state: TrainState, *, ema: bool) -> TrainState:
        """The state with what an evaluation reads, whole and on the device."""
        state = self.inner.to_evaluate(state, ema=ema)
        if ema:
            return state.replace(ema=moved(state.ema, self.device))
        return (
            state.replace(opt_state=moved(state.opt_state, self.device)) if keeps_averages(state.opt_state) else state
        )

    def whole(self, state: TrainState) -> TrainState:
        """The state with whole leaves, which are where they are kept."""
        return self.inner.whole(state)

    def whole_on_first(self, state: TrainState) -> TrainState:
        """The state with whole leaves on process 0; on the others it is for no use."""
        return self.inner.whole_on_first(state)

    @property
    def is_in_pieces(self) -> bool:
        """Whether a kept state is in pieces: the rows of all processes, in their order, are the whole leaves."""
        return self.inner.is_in_pieces

    def in_pieces(self, state: TrainState, *, gathered_below: int = 0) -> TrainState:
        """The state with a `Piece` for each leaf that is cut, where it is kept."""
        return self.inner.in_pieces(state, gathered_below=gathered_below)

    def rows_on_first(self, piece: Piece, device: torch.device) -> Iterator[Tensor]:
        """The rows of all processes, on process 0."""
        return self.inner.rows_on_first(piece, device)

    def told_by_first(self, value: T) -> T:
        """What process 0 gives."""
        return self.inner.told_by_first(value)

    def kept(self, state: TrainState) -> TrainState:
        """A whole state as this process keeps it."""
        return self._at_rest(self.inner.kept(state))

    def _at_rest(self, state: TrainState) -> TrainState:
        held: dict[str, Any] = {"opt_state": moved(state.opt_state, CPU), "ema": moved(state.ema, CPU)}
        rest = moved(state.replace(opt_state=(), ema=None), self.device)
        return rest.replace(**held)
