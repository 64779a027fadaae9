"""A state that several processes train together, each of which keeps a part of it: `shard` and `unshard`."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from functrain.distributed.elementwise import is_elementwise
from functrain.distributed.layout import Cut, Cuts, Layout, cut_of, own_params, own_tree
from functrain.distributed.messages import gather_all, scatter_sums
from functrain.distributed.replicas import replicate
from functrain.distributed.world import World, current_world
from functrain.foundation.trees import flatten, unflatten
from functrain.optim import global_norm
from functrain.optim.clipping import SMALL
from functrain.optim.foreach import sums_of_squares
from functrain.step.arguments import check_whole_batches
from functrain.step.collectives import ALONE, Share
from functrain.step.phases import add_parts
from functrain.step.state import Params, Part, TrainState, require_state
from functrain.step.tree import sum_in_order, sum_in_tree, tree_over_rows

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
REDUCTIONS = ("fast", "exact")


def shard(state: TrainState, mesh: Any = None, strategy: str = "ddp", *, reduction: str = "fast") -> TrainState:
    """The state as this process keeps it, to be trained by all processes together. All of them must call it.

    Values are those of process 0. What a strategy keeps in shards is cut along the first dimension of each leaf:

    | strategy | parameters | optimizer's state, average | sums of gradients in a window |
    |----------|------------|----------------------------|-------------------------------|
    | ddp      | whole      | whole                      | whole                         |
    | zero1    | whole      | shards                     | whole, then shards            |
    | zero2    | whole      | shards                     | whole, then shards            |
    | zero3    | shards     | shards                     | whole, then shards            |

    Args:
        state: any state, whole.
        mesh: how many processes there are, if it is said: a number, `{"dp": n}`, or a torch DeviceMesh of one
            dimension; by default all.
        strategy: one of those.
        reduction: "exact": the micro-batches of a window are shared out, and their sums added in one binary tree, so
            that the bits do not depend on the number of processes nor on the strategy: that of the processes must
            divide `accumulate`, a power of two. "fast": each micro-batch's examples are shared out.

    Returns:
        The state to train: with `fit`, or with `train_step` on this process's micro-batches.

    Raises:
        TypeError: for anything but a state.
        ValueError: for a strategy or a reduction that does not exist, or that this state or world does not allow.

    References:
        Rajbhandari et al., ZeRO: Memory optimizations toward training trillion parameter models, SC 2020.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1), accumulate=2)
        >>> state = shard(state, strategy="zero3", reduction="exact")  # ft.shard
        >>> for _ in range(2):
        ...     state, metrics = ft.train_step(state, (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> unshard(state).step
        1
    """
    require_state("shard", state)
    world = current_world()
    _check(state, mesh, strategy, reduction, world)
    if state.recipe.exchange is not None:
        state = unshard(state)
    state = replicate(state, world)
    if strategy == "ddp" and reduction == "fast" and state.recipe.accumulate == 1:
        return state  # whose sums stand within the step's graph; they would be sent for each micro-batch of a window
    in_tree, cuts = reduction == "exact", strategy != "ddp"
    pieces = state.recipe.accumulate if in_tree else world.size
    layout = Layout.of(
        state,
        chunks=pieces,
        ranks=world.size,
        cuts_params=strategy == "zero3",
        cuts_updates=cuts,
    )
    trainable = {name: state.params[name] for name in state.recipe.network.trainable}
    by_element = not layout.is_cut or is_elementwise(state.recipe.optimizer, trainable)
    chunks = tuple((name, cut_of(leaf, pieces, world.size)) for name, leaf in trainable.items())
    exchange = Sharding(world.rank, world.size, strategy, in_tree, layout, chunks, by_element)
    whole = state.replace(recipe=dataclasses.replace(state.recipe, exchange=exchange, collectives=ALONE))
    return exchange.kept(whole)


def unshard(state: TrainState) -> TrainState:
    """The whole state, as `init_state` makes them, equal on all processes. All of them must call it.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> ft.digest(unshard(shard(state, strategy="zero3"))) == ft.digest(state)
        True
    """
    require_state("unshard", state)
    exchange = state.recipe.exchange
    if exchange is None:
        return state
    whole = exchange.whole(state.at_window_start())
    return whole.replace(recipe=dataclasses.replace(state.recipe, exchange=None))


@dataclass(frozen=True, eq=False)
class Sharding:
    """The processes that train one state: an `Exchange`; see there.

    Attributes:
        rank, ranks: the number of this process, and how many there are.
        strategy: one of `STRATEGIES`.
        in_tree: whether sums are exact.
        layout: which leaves are cut.
        chunks: of the gradients, whose squares are added each by itself: the same whatever is cut.
        by_element: whether the optimizer may work on shards; else it gets whole leaves, which are cut again after it.
    """

    rank: int
    ranks: int
    strategy: str
    in_tree: bool
    layout: Layout
    chunks: tuple[tuple[str, Cut | None], ...]
    by_element: bool

    @cached_property
    def _params(self) -> Mapping[str, Cut | None]:
        return dict(self.layout.params)

    @cached_property
    def _updated(self) -> Mapping[str, Cut | None]:
        """Cuts of the gradients, and of the parameters, as the optimizer takes them."""
        return {name: cut if self.by_element else None for name, cut in self.layout.updated}

    def share(self, accumulate: int) -> Share:
        """A run of the window's micro-batches, or, where examples are shared out, all of them."""
        if not self.in_tree:
            return Share(0, accumulate, self.rank)
        count = accumulate // self.ranks
        return Share(self.rank * count, count, 0)

    def params(self, params: Params) -> Params:
        """The whole parameters, of those in a kept state."""
        return self._whole_params(params, self._params)

    def sum(self, part: Part, counts: Sequence[int]) -> tuple[Part, list[int]]:
        """The sum over the processes; gradients as the optimizer takes them."""
        if self.ranks == 1:
            return part, list(counts)
        names = part.names
        small = dataclasses.replace(part, grads={}, names=())
        leaves, spec = flatten(small)
        *gathered, numbers = gather_all([*leaves, torch.tensor(counts, device=part.sums.device)], self.ranks)
        present = [bool(count) for count in numbers[:, 0].tolist()]
        parts = [unflatten(spec, [leaf[rank] for leaf in gathered]) for rank in range(self.ranks)]
        add = sum_in_tree if self.in_tree else sum_in_order
        total: Part = add([each if here else None for each, here in zip(parts, present)], add_parts)
        grads = self._summed_grads(part.grads, present)
        return dataclasses.replace(total, grads=grads, names=names), numbers.sum(0).tolist()

    def _summed_grads(self, grads: Params, present: Sequence[bool]) -> Params:
        """Sums of whole gradients, each cut or whole, as the optimizer takes it."""

        def add(rows: Sequence[Tensor]) -> Tensor:
            summed: Tensor = combine([row if here else None for row, here in zip(rows, present)], torch.add)
            return summed

        combine = sum_in_tree if self.in_tree else sum_in_order
        cuts = {name: self._updated.get(name) for name in grads}
        # What stays whole is cut too, for the sum: each process adds a part of it, and gathers the others'.
        flat = {name: _even(grad.reshape(-1), self.ranks) for name, grad in grads.items() if cuts[name] is None}
        rows = {
            name: flat[name] if (cut := cuts[name]) is None else cut.padded(grad).reshape(self.ranks, -1)
            for name, grad in grads.items()
        }
        sums = dict(zip(rows, scatter_sums(list(rows.values()), self.ranks, add)))
        gathered = dict(zip(flat, gather_all([sums[name] for name in flat], self.ranks)))
        return {
            name: gathered[name].reshape(-1)[: grad.numel()].view(grad.shape)
            if (cut := cuts[name]) is None
            else sums[name].view(cut.rows_of_rank, *grad.shape[1:])
            for name, grad in grads.items()
        }

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
        cuts = [(name, cut) for name, cut in self.chunks if cut is not None]
        shards = [name for name, _ in cuts if self._updated[name] is not None]
        squares = {name: self._squares(grads[name], cut, is_shard=name in shards) for name, cut in cuts}
        if shards:
            [rows] = gather_all([torch.stack([squares[name] for name in shards])], self.ranks)
            squares |= dict(zip(shards, rows.transpose(0, 1).reshape(len(shards), -1)))
        whole = [name for name in grads if name not in squares]
        squares |= dict(zip(whole, sums_of_squares([grads[name] for name in whole]))) if whole else {}
        in_order = [squares[name].double() for name in grads]
        return torch.stack([tree_over_rows(each) if each.ndim else each for each in in_order]).sum().sqrt()

    def _squares(self, grad: Tensor, cut: Cut, *, is_shard: bool) -> Tensor:
        """The sum of squares of each chunk, of a whole gradient or of those that are in this process's shard."""
        count = cut.chunks // cut.ranks if is_shard else cut.chunks
        return torch.stack(sums_of_squares(cut.chunks_of(grad, self.rank * count if is_shard else 0, count)))

    def to_update(self, state: TrainState) -> TrainState:
        """The state as the optimizer takes it: its shards, or all of it."""
        if not self.by_element:
            return self.whole(state)
        if self.strategy == "zero3":
            return state
        return state.replace(params=own_params(state.params, self._updated, self.rank))

    def updated(self, new: TrainState) -> TrainState:
        """The state as it is kept, of one that the optimizer has updated."""
        if not self.by_element:
            return self.kept(new)
        if self.strategy == "zero3":
            return new
        cuts = {name: self._updated.get(name) for name in new.params}
        return new.replace(params=self._whole_params(new.params, cuts))

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
            opt_state=self._whole_tree(state.opt_state, self.layout.opt_state),
            ema=self._whole_tree(state.ema, self.layout.ema),
            accumulator=window,
        )

    def kept(self, state: TrainState) -> TrainState:
        """A whole state as this process keeps it."""
        if not self.layout.is_cut:
            return state
        window = state.accumulator
        if window is not None:
            cuts = dict(self.layout.updated)
            window = dataclasses.replace(window, grads=own_params(window.grads, cuts, self.rank))
        return state.replace(
            params=own_params(state.params, self._params, self.rank),
            opt_state=own_tree(state.opt_state, self.layout.opt_state, self.rank),
            ema=own_tree(state.ema, self.layout.ema, self.rank),
            accumulator=window,
        )

    def _whole_params(self, params: Params, cuts: Mapping[str, Cut | None]) -> Params:
        names = [name for name in params if cuts.get(name) is not None]
        found = self._gathered([params[name] for name in names], [cuts[name] for name in names])
        return params | dict(zip(names, found))

    def _whole_tree(self, tree: Any, cuts: Cuts) -> Any:
        leaves, spec = flatten(tree)
        places = [place for place, cut in enumerate(cuts) if cut is not None]
        for place, leaf in zip(places, self._gathered([leaves[p] for p in places], [cuts[p] for p in places])):
            leaves[place] = leaf
        return unflatten(spec, leaves)

    def _gathered(self, shards: Sequence[Tensor], cuts: Sequence[Cut | None]) -> list[Tensor]:
        """Whole leaves of cut ones."""
        found = gather_all(shards, self.ranks) if shards else []
        return [cut.whole(rows).clone() for rows, cut in zip(found, cuts) if cut is not None]


def _check(state: TrainState, mesh: Any, strategy: str, reduction: str, world: World) -> None:
    """Refuse what `shard` cannot do."""
    for name, value, allowed in (("strategy", strategy, STRATEGIES), ("reduction", reduction, REDUCTIONS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    _check_mesh(mesh, world)
    recipe = state.recipe
    if recipe.statistics is not None or recipe.activations:
        raise ValueError(
            "statistics of layers are those of one process: make the state without statistics and activations, or "
            "train it without functrain.shard"
        )
    check_whole_batches(state.opt_state, "a state that several processes train")
    if reduction == "exact":
        _check_window(recipe.accumulate, world)


def _check_mesh(mesh: Any, world: World) -> None:
    sizes: dict[str, int] = {}
    if isinstance(mesh, int):
        sizes = {"dp": mesh}
    elif isinstance(mesh, Mapping):
        sizes = dict(mesh)
    elif mesh is not None:
        sizes = dict(zip(mesh.mesh_dim_names or ("dp",), mesh.mesh.shape, strict=True))
    if others := [name for name, size in sizes.items() if name != "dp" and size != 1]:
        raise ValueError(f"a mesh has one dimension, 'dp', over which data are shared out; got {', '.join(others)} too")
    if sizes.get("dp", world.size) != world.size:
        raise ValueError(f"the mesh has {sizes['dp']} processes, and {world.size} were started")


def _check_window(accumulate: int, world: World) -> None:
    if accumulate & (accumulate - 1) or accumulate % world.size:
        raise ValueError(
            f"reduction='exact' shares out the micro-batches of an update: their number must be a power of two that "
            f"the number of processes divides; got accumulate={accumulate} and {world.size} processes. Give init_state "
            f"accumulate={max(8, 1 << (world.size - 1).bit_length())}, for example, with smaller batches; or take "
            "reduction='fast'"
        )


def _even(flat: Tensor, ranks: int) -> Tensor:
    """A vector in as many rows of equal length as there are processes, filled up with zeros."""
    missing = -len(flat) % ranks
    return torch.nn.functional.pad(flat, (0, missing)).view(ranks, -1) if missing else flat.view(ranks, -1)
