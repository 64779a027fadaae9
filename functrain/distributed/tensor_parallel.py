"""Processes that each have a slice of some layers: an `Exchange` within another, which shares out data and shards."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from functrain.distributed.around import Around
from functrain.distributed.mesh import Group
from functrain.distributed.messages import gather_all, gather_on_first
from functrain.distributed.slices import Slice, Slices, Slicing
from functrain.foundation.errors import FunctrainError
from functrain.foundation.trees import flatten, unflatten
from functrain.optim import global_norm
from functrain.optim.averages import keeps_averages
from functrain.step.state import Params, Part, TrainState

T = TypeVar("T")
M = TypeVar("M")
ALIKE = 1e-2  # relative difference of what processes have alike: rounding is below, a wrong plan far above


@dataclass(frozen=True, eq=False)
class TensorParallel(Around):
    """The processes of a mesh with `tp`, as one of them sees them.

    The inner exchange is among the processes with this one's slices: how these are kept, and summed. It knows them for
    whole leaves.

    Attributes:
        group: the processes with the other slices, which compute with the same examples.
        cuts: which leaves are cut.
        by_element: whether the optimizer may work on slices; else it gets whole leaves.
        gather: how whole leaves are put together.
    """

    group: Group
    cuts: Slicing
    by_element: bool
    gather: Callable[[Sequence[Tensor], Group], Sequence[Tensor | None]] = gather_all

    @property
    def processes(self) -> int:
        """How many there are in all."""
        return self.inner.processes * self.group.size

    @property
    def within(self) -> None:
        """A sum over those with the same slices is one over some of the processes, with slices beside it."""

    @property
    def compiles_passes(self) -> bool:
        """A pass is not: inductor's program of one hung after its first run (torch 2.13, gloo)."""
        return False

    def params(self, params: Params) -> Params:
        """The whole parameters."""
        return self._whole_params(self.inner.params(params))

    def sum(self, part: Part, counts: Sequence[int]) -> tuple[Part, list[int]]:
        """The sum over the data; gradients as the optimizer takes them."""
        total, counts = self.inner.sum(part, counts)
        self._check_alike(total)
        if not self.by_element:
            total = dataclasses.replace(total, grads=self._whole_params(total.grads))
        return total, counts

    def _check_alike(self, total: Part) -> None:
        """Refuse a plan by which processes differ in what all of them should have alike.

        Raises:
            FunctrainError: they do.
        """
        names = [name for name in total.grads if name not in self.cuts.params]
        norms = [torch.linalg.vector_norm(total.grads[name]).double() for name in names]
        [rows] = gather_all([torch.stack([*total.sums.reshape(-1), *norms])], self.group)
        length = total.sums.numel()
        alike = torch.cat([_alike(rows[:, :length]), _alike(rows[:, length:])])
        if alike.all():  # the host waits here, as it does for the norm
            return
        first = int((~alike).int().argmax())
        if first < length:
            raise FunctrainError(
                "tensor_parallel: the processes that share the layers have different losses for the same examples. A "
                "column layer gives each process a part of the features: name the layer behind it as row, or leave it "
                "out of the plan"
            )
        raise FunctrainError(
            f"tensor_parallel: the gradient of {names[first - length]!r} differs between the processes that share the "
            "layers: it is used between a column and a row layer, where each has a part of the features. Leave these "
            "layers out of the plan"
        )

    def norm(self, grads: Params) -> Tensor:
        """The global norm, in which a whole gradient counts once."""
        if not self.by_element:
            return global_norm(grads)
        whole = {name: grad for name, grad in grads.items() if name not in self.cuts.params}
        cut = {name: grad for name, grad in grads.items() if name in self.cuts.params}
        norms: list[Tensor] = [self.inner.norm(whole).double().reshape(1)] if whole else []
        dtype = next(iter(grads.values())).dtype
        if cut:
            own = self.inner.norm(cut)
            dtype = own.dtype
            [of_all] = gather_all([own.double().reshape(1)], self.group)
            norms.append(of_all.reshape(-1))
        every = torch.cat(norms)
        largest = every.max()  # so that no square overflows
        return torch.where(largest > 0, (every / largest).square().sum().sqrt() * largest, largest).to(dtype)

    def to_update(self, state: TrainState, sums: T) -> tuple[TrainState, T]:
        """The state as the optimizer takes it: its shards of slices, or all of it."""
        return self.inner.to_update(state, sums) if self.by_element else (self.whole(state), sums)

    def updated(self, new: TrainState, metrics: M) -> tuple[TrainState, M]:
        """The state as it is kept, of one that the optimizer has updated."""
        return self.inner.updated(new, metrics) if self.by_element else (self.kept(new), metrics)

    def to_evaluate(self, state: TrainState, *, ema: bool) -> TrainState:
        """The state with whole parameters, and the averages that an evaluation takes in their place."""
        state = self.inner.to_evaluate(state, ema=ema)
        state = state.replace(params=self._whole_params(state.params))
        if ema:
            return state.replace(ema=self._whole_tree(state.ema, self.cuts.ema))
        if keeps_averages(state.opt_state):
            return state.replace(opt_state=self._whole_tree(state.opt_state, self.cuts.opt_state))
        return state

    def whole(self, state: TrainState) -> TrainState:
        """The state with whole leaves."""
        return self._joined(self.inner.whole(state))

    def whole_on_first(self, state: TrainState) -> TrainState:
        """The state with whole leaves on process 0; on the others it is for no use."""
        state = self.inner.whole_on_first(state)
        return state if self.rank else dataclasses.replace(self, gather=gather_on_first)._joined(state)

    @property
    def is_in_pieces(self) -> bool:
        """A kept state is in slices, which are no rows: it is put together for a checkpoint."""
        return False

    def in_pieces(self, state: TrainState, *, gathered_below: int = 0) -> TrainState:  # noqa: ARG002 - of pieces
        """The state with whole leaves on process 0."""
        return self.whole_on_first(state)

    def kept(self, state: TrainState) -> TrainState:
        """A whole state as this process keeps it."""
        return self.inner.kept(self.cuts.own(state))

    def _joined(self, state: TrainState) -> TrainState:
        window = state.accumulator
        if window is not None:
            window = dataclasses.replace(window, grads=self._whole_params(window.grads))
        return state.replace(
            params=self._whole_params(state.params),
            opt_state=self._whole_tree(state.opt_state, self.cuts.opt_state),
            ema=self._whole_tree(state.ema, self.cuts.ema),
            accumulator=window,
        )

    def _whole_params(self, params: Params) -> Params:
        names = [name for name in params if name in self.cuts.params]
        found = self._gathered([params[name] for name in names], [self.cuts.params[name] for name in names])
        return params | dict(zip(names, found))

    def _whole_tree(self, tree: Any, slices: Slices) -> Any:
        leaves, spec = flatten(tree)
        cuts = {place: cut for place, cut in enumerate(slices) if cut is not None}
        found = self._gathered([leaves[place] for place in cuts], list(cuts.values()))
        for place, leaf in zip(cuts, found):
            leaves[place] = leaf
        return unflatten(spec, leaves)

    def _gathered(self, slices: Sequence[Tensor], cuts: Sequence[Slice]) -> list[Tensor]:
        found = self.gather(slices, self.group) if slices else []
        return [own if rows is None else cut.whole(rows) for own, rows, cut in zip(slices, found, cuts)]


def _alike(rows: Tensor) -> Tensor:
    """Whether the processes have each number alike, bool; `[ranks, numbers]`. What is not finite is.

    A number that is 0 but for rounding may differ: it is told by the largest.
    """
    if not rows.shape[1]:
        return rows.new_ones(0, dtype=torch.bool)
    sizes = rows.abs().amax(0)
    return ~((rows - rows[:1]).abs().amax(0) > ALIKE * sizes + 1e-6 * sizes.amax())
