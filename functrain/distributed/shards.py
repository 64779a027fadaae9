"""Processes that each keep a part of a state, and what they send each other between the phases of a step."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from functrain.distributed.layout import Cut, Cuts, Layout, own_params, own_tree
from functrain.distributed.mesh import Group, Mesh
from functrain.distributed.messages import gather_all, gather_on_first
from functrain.distributed.pieces import rows_on_first, told_by_first
from functrain.distributed.replicas import Replicas
from functrain.distributed.sums import Sums
from functrain.foundation.pieces import Piece
from functrain.foundation.trees import flatten, unflatten
from functrain.optim import global_norm
from functrain.optim.averages import keeps_averages
from functrain.optim.clipping import SMALL
from functrain.optim.foreach import sums_of_squares
from functrain.step.collectives import Collectives, Share
from functrain.step.state import Params, Part, TrainState
from functrain.step.tree import tree_over_rows

T = TypeVar("T")
M = TypeVar("M")


@dataclass(frozen=True, eq=False)
class Sharding:
    """The processes that train one state: an `Exchange`; see there.

    Attributes:
        mesh: the processes: all that share out the data, those with the other shards, those with the same shard.
        strategy: ddp, zero1, zero2 or zero3; see `shard`.
        in_tree: whether sums are exact.
        layout: which leaves are cut.
        chunks: of the gradients, whose squares are added each by itself: the same whatever is cut.
        by_element: whether the optimizer may work on shards; else it gets whole leaves, which are cut again after it.
        in_graph: whether sums may stand in the graph of an update.
        blocks: the names of the parameters that passes gather block by block; None: there are no blocks.
        gather: how whole leaves are put together.
    """

    mesh: Mesh
    strategy: str
    in_tree: bool
    layout: Layout
    chunks: tuple[tuple[str, Cut | None], ...]
    by_element: bool
    in_graph: bool = False
    blocks: frozenset[str] | None = None
    gather: Callable[[Sequence[Tensor], Group], Sequence[Tensor | None]] = gather_all

    @property
    def rank(self) -> int:
        """The number of this process among those that share out the data."""
        return self.mesh.data.rank

    @property
    def ranks(self) -> int:
        """How many share out the data."""
        return self.mesh.data.size

    @cached_property
    def _params(self) -> Mapping[str, Cut | None]:
        return dict(self.layout.params)

    @cached_property
    def _updated(self) -> Mapping[str, Cut | None]:
        """Cuts of the gradients, and of the parameters, as the optimizer takes them."""
        return {name: cut if self.by_element else None for name, cut in self.layout.updated}

    @property
    def processes(self) -> int:
        """How many there are in all."""
        return self.ranks

    def share(self, accumulate: int) -> Share:
        """A run of the window's micro-batches, or, where examples are shared out, all of them."""
        if not self.in_tree:
            return Share(0, accumulate, self.rank)
        count = accumulate // self.ranks
        return Share(self.rank * count, count, 0)

    @property
    def in_blocks(self) -> bool:
        """Whether passes gather parameters: also where one process has them all, so that its bits are the same."""
        return self.blocks is not None

    @property
    def compiles_passes(self) -> bool:
        """Whether a pass may be compiled: not where it gathers parameters."""
        return not self.in_blocks

    @cached_property
    def within(self) -> Collectives | None:
        """Sums that may stand in an update's graph."""
        return Replicas(self.rank, self.ranks) if self.in_graph and self.ranks > 1 else None

    @cached_property
    def in_step(self) -> bool:
        """Whether passes send something."""
        return self.in_blocks or bool(self._sums.kept)

    @cached_property
    def _sums(self) -> Sums:
        """Of parts. Exact ones have no shards in a window, as a tree adds up a process's micro-batches first."""
        in_shards = not self.in_tree and self.strategy in ("zero2", "zero3")
        kept = frozenset(name for name, cut in self._updated.items() if cut is not None and in_shards)
        return Sums(self.mesh, self.in_tree, self._updated, kept)

    def opened(self, params: Params) -> tuple[Params, Params]:
        """What the passes of a window compute with."""
        cuts = {name: cut for name, cut in self._params.items() if cut is not None and name in (self.blocks or ())}
        shards = {name: params[name] for name in cuts}
        rest = self.params({name: leaf for name, leaf in params.items() if name not in cuts})
        return {name: rest[name] if name in rest else _stand_in(params[name], cuts[name]) for name in params}, shards

    def params(self, params: Params) -> Params:
        """The whole parameters, of those in a kept state."""
        return self._whole_params(params, self._params)

    def to_keep(self, part: Part) -> Part:
        """What a window keeps of a micro-batch."""
        return self._sums.to_keep(part)

    def sum(self, part: Part, counts: Sequence[int]) -> tuple[Part, list[int]]:
        """The sum over the processes; gradients as the optimizer takes them."""
        return self._sums.sum(part, counts)

    def norm(self, grads: Params) -> Tensor:
        """The global norm of such gradients: exact, of the squares of fixed chunks, which are added in one tree."""
        if not self.in_tree and not any(self._updated.values()):
            return global_norm(grads)
        dtype = torch.float64 if any(g.dtype == torch.float64 for g in grads.values()) else torch.float32
        norm = self._root_of_squares({name: grad.to(dtype) for name, grad in grads.items()})
        if not norm.isinf().item():
            return norm.to(dtype)
        # As of `global_norm`: squares that overflow do not make it infinite.
        return (self._root_of_squares({name: grad.to(dtype) * SMALL for name, grad in grads.items()}) / SMALL).to(dtype)

    def _root_of_squares(self, grads: Params) -> Tensor:
        cuts = [(name, cut) for name, cut in self.chunks if cut is not None and name in grads]
        shards = [name for name, _ in cuts if self._updated[name] is not None]
        squares = {name: self._squares(grads[name], cut, is_shard=name in shards) for name, cut in cuts}
        if shards:
            [rows] = gather_all([torch.stack([squares[name] for name in shards])], self.mesh.shards)
            squares |= dict(zip(shards, rows.transpose(0, 1).reshape(len(shards), -1)))
        whole = [name for name in grads if name not in squares]
        squares |= dict(zip(whole, sums_of_squares([grads[name] for name in whole]))) if whole else {}
        in_order = [squares[name].double() for name in grads]
        return torch.stack([tree_over_rows(each) if each.ndim else each for each in in_order]).sum().sqrt()

    def _squares(self, grad: Tensor, cut: Cut, *, is_shard: bool) -> Tensor:
        """The sum of squares of each chunk, of a whole gradient or of those that are in this process's shard."""
        count = cut.chunks // cut.ranks if is_shard else cut.chunks
        return torch.stack(
            sums_of_squares(cut.chunks_of(grad, self.mesh.shards.rank * count if is_shard else 0, count))
        )

    def to_update(self, state: TrainState, sums: T) -> tuple[TrainState, T]:
        """The state as the optimizer takes it: its shards, or all of it."""
        if not self.by_element:
            return self.whole(state), sums
        if self.strategy == "zero3":
            return state, sums
        return state.replace(params=own_params(state.params, self._updated, self.mesh.shards.rank)), sums

    def updated(self, new: TrainState, metrics: M) -> tuple[TrainState, M]:
        """The state as it is kept, of one that the optimizer has updated."""
        if not self.by_element:
            return self.kept(new), metrics
        if self.strategy == "zero3":
            return new, metrics
        cuts = {name: self._updated.get(name) for name in new.params}
        return new.replace(params=self._whole_params(new.params, cuts)), metrics

    def to_evaluate(self, state: TrainState, *, ema: bool) -> TrainState:
        """The state with whole parameters, and the averages that an evaluation takes in their place."""
        state = state.replace(params=self.params(state.params))
        if ema:
            return state.replace(ema=self._whole_tree(state.ema, self.layout.ema, state.device))
        if keeps_averages(state.opt_state):
            return state.replace(opt_state=self._whole_tree(state.opt_state, self.layout.opt_state, state.device))
        return state

    def whole(self, state: TrainState) -> TrainState:
        """The state with whole leaves."""
        if not self.layout.is_cut:
            return state
        window = state.accumulator
        if window is not None:
            cuts = dict(self.layout.updated)
            window = dataclasses.replace(window, grads=self._whole_params(window.grads, cuts))
        return state.replace(
            params=self.params(state.params),
            opt_state=self._whole_tree(state.opt_state, self.layout.opt_state, state.device),
            ema=self._whole_tree(state.ema, self.layout.ema, state.device),
            accumulator=window,
        )

    def whole_on_first(self, state: TrainState) -> TrainState:
        """The state with whole leaves on process 0; on the others it is for no use."""
        if self.mesh.replicas.rank:
            return state
        return dataclasses.replace(self, gather=gather_on_first).whole(state)

    @property
    def is_in_pieces(self) -> bool:
        """Whether a kept state is in pieces: the rows of all processes, in their order, are the whole leaves."""
        return self.layout.is_cut and self.mesh.replicas.size == 1

    def in_pieces(self, state: TrainState, *, gathered_below: int = 0) -> TrainState:
        """The state with a `Piece` for each leaf that is cut, where it is kept."""
        if not self.is_in_pieces:
            return state

        def named(params: Params, cuts: Mapping[str, Cut | None]) -> Params:
            made = self._in_pieces(list(params.values()), [cuts.get(n) for n in params], state.device, gathered_below)
            return dict(zip(params, made))

        def tree(value: Any, cuts: Cuts) -> Any:
            leaves, spec = flatten(value)
            return unflatten(spec, self._in_pieces(leaves, list(cuts), state.device, gathered_below))

        window = state.accumulator
        if window is not None:
            window = dataclasses.replace(window, grads=named(window.grads, dict(self.layout.updated)))
        return state.replace(
            params=named(state.params, self._params),
            opt_state=tree(state.opt_state, self.layout.opt_state),
            ema=tree(state.ema, self.layout.ema),
            accumulator=window,
        )

    def _in_pieces(self, leaves: list[Any], cuts: list[Cut | None], device: torch.device, below: int) -> list[Any]:
        made = [
            leaf if cut is None else Piece(leaf, cut.rows, self.rank, self.ranks) for leaf, cut in zip(leaves, cuts)
        ]
        small = [place for place, leaf in enumerate(made) if isinstance(leaf, Piece) and leaf.nbytes < below]
        first = dataclasses.replace(self, gather=gather_on_first)
        found = first._gathered([made[place].rows.to(device) for place in small], [cuts[place] for place in small])
        for place, leaf in zip(small, found):
            made[place] = leaf.to(made[place].device)
        return made

    def rows_on_first(self, piece: Piece, device: torch.device) -> Iterator[Tensor]:
        """The rows of all processes, on process 0; not more than a message's at a time."""
        return rows_on_first(piece, device)

    def told_by_first(self, value: T) -> T:
        """What process 0 gives."""
        return told_by_first(value)

    def kept(self, state: TrainState) -> TrainState:
        """A whole state as this process keeps it."""
        if not self.layout.is_cut:
            return state
        window, rank = state.accumulator, self.mesh.shards.rank
        if window is not None:
            cuts = dict(self.layout.updated)
            window = dataclasses.replace(window, grads=own_params(window.grads, cuts, rank))
        return state.replace(
            params=own_params(state.params, self._params, rank),
            opt_state=own_tree(state.opt_state, self.layout.opt_state, rank),
            ema=own_tree(state.ema, self.layout.ema, rank),
            accumulator=window,
        )

    def _whole_params(self, params: Params, cuts: Mapping[str, Cut | None]) -> Params:
        names = [name for name in params if cuts.get(name) is not None]
        found = self._gathered([params[name] for name in names], [cuts[name] for name in names])
        return params | dict(zip(names, found))

    def _whole_tree(self, tree: Any, cuts: Cuts, device: torch.device) -> Any:
        """Of a tree that may be offloaded: what sends between processes may need tensors on their device."""
        leaves, spec = flatten(tree)
        for place, cut in enumerate(cuts):
            if cut is not None and leaves[place].device != device:  # one by one, as the device has no room for all
                [leaf] = self._gathered([leaves[place].to(device)], [cut])
                leaves[place] = leaf.to(leaves[place].device)
        places = [place for place, cut in enumerate(cuts) if cut is not None and leaves[place].device == device]
        for place, leaf in zip(places, self._gathered([leaves[p] for p in places], [cuts[p] for p in places])):
            leaves[place] = leaf
        return unflatten(spec, leaves)

    def _gathered(self, shards: Sequence[Tensor], cuts: Sequence[Cut | None]) -> list[Tensor]:
        """Whole leaves of cut ones."""
        found = self.gather(shards, self.mesh.shards) if shards else []
        return [
            shard if rows is None or cut is None else _alone(cut.whole(rows))
            for shard, rows, cut in zip(shards, found, cuts)
        ]


def _alone(leaf: Tensor) -> Tensor:
    """A leaf with nothing else in its memory."""
    return leaf if leaf.untyped_storage().nbytes() == leaf.nbytes else leaf.clone()


def _stand_in(shard: Tensor, cut: Cut) -> Tensor:
    """A tensor of the whole leaf's form, without its memory: NaN, which tells of code that reads it in its place."""
    return shard.new_full((), float("nan")).expand(cut.rows, *shard.shape[1:])
