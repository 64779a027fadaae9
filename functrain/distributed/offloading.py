"""The optimizer's state in the CPU's memory, where updates are computed too.

    device   gradients of a window, their sum, its norm           parameters
                     | to page-locked memory                          ^
    CPU              v          optimizer's state, average: update -> |

The state never travels. Each update sends this process's gradients and parameters to the CPU, and the parameters back.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from functrain.distributed.around import Around
from functrain.foundation.trees import flatten, unflatten
from functrain.optim.averages import keeps_averages
from functrain.step.state import TrainState

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
class Offloaded(Around):
    """An `Exchange` like another, whose optimizer's state and average are at rest on the CPU.

    Attributes:
        device: where the rest of the state is.
    """

    device: torch.device

    @property
    def within(self) -> None:
        """An update is on another device than the sums."""

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

    def kept(self, state: TrainState) -> TrainState:
        """A whole state as this process keeps it."""
        return self._at_rest(self.inner.kept(state))

    def _at_rest(self, state: TrainState) -> TrainState:
        held: dict[str, Any] = {"opt_state": moved(state.opt_state, CPU), "ema": moved(state.ema, CPU)}
        rest = moved(state.replace(opt_state=(), ema=None), self.device)
        return rest.replace(**held)
