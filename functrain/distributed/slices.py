"""Which tensors of a state are cut for tensor parallelism, as a plan of path patterns says, and how."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from functrain.distributed.layout import like_their_params
from functrain.distributed.mesh import Group
from functrain.foundation.patterns import did_you_mean, fits
from functrain.foundation.trees import flatten, unflatten
from functrain.step.network import Network
from functrain.step.sliced_layers import SlicedLayer
from functrain.step.state import Params, TrainState


@dataclass(frozen=True)
class Slice:
    """How a leaf is cut into slices.

    Attributes:
        dim: the dimension that is cut.
        parts: that stand one after another in it, each of which is cut: 3 for queries, keys and values in one.
        ranks: how many processes share them.

    Example:
        >>> cut = Slice(dim=0, parts=2, ranks=2)
        >>> cut.own(torch.arange(8), 1)
        tensor([2, 3, 6, 7])
        >>> cut.whole(torch.stack([cut.own(torch.arange(8), rank) for rank in range(2)]))
        tensor([0, 1, 2, 3, 4, 5, 6, 7])
    """

    dim: int
    parts: int
    ranks: int

    def own(self, leaf: Tensor, rank: int) -> Tensor:
        """A process's slice of a whole leaf, in memory of its own."""
        pieces = leaf.unflatten(self.dim, (self.parts, self.ranks, -1)).select(self.dim + 1, rank)
        return pieces.flatten(self.dim, self.dim + 1).clone(memory_format=torch.contiguous_format)

    def whole(self, slices: Tensor) -> Tensor:
        """The whole leaf of the slices of all processes, `[ranks, ...]`."""
        pieces = slices.unflatten(self.dim + 1, (self.parts, -1)).movedim(0, self.dim + 1)
        return pieces.flatten(self.dim, self.dim + 2).contiguous()


Slices = tuple[Slice | None, ...]


def layers_of(network: Network, plan: Mapping[str, str], ranks: int) -> dict[str, tuple[str, int]]:
    """The layers that a plan names: path -> "column" or "row", and in how many parts it is cut.

    Args:
        network: whose layers they are.
        plan: pattern of paths -> "column", "row", or "column:N" for a layer of N parts.
        ranks: how many processes share the layers.

    Raises:
        TypeError, ValueError: the plan names something else than linear layers of its own weights, or sizes that the
            processes cannot share.
    """
    if not isinstance(plan, Mapping) or not all(isinstance(each, str) for pair in plan.items() for each in pair):
        raise TypeError(f"tensor_parallel is a mapping of path patterns to 'column' or 'row'; got {plan!r}")
    modules = dict(network.given())
    found: dict[str, tuple[str, int]] = {}
    for pattern, text in plan.items():
        named = [path for path in modules if path and fits(path, [pattern])]
        if not named:
            linear = [path for path, module in modules.items() if type(module) is nn.Linear]
            hint = did_you_mean(pattern, linear)
            raise ValueError(
                f"tensor_parallel: the pattern {pattern!r} names no module{hint} The linear layers are "
                f"{', '.join(linear[:12]) or 'none'}"
            )
        way = _way(text)
        for path in named:
            if found.setdefault(path, way) != way:
                raise ValueError(f"tensor_parallel: {path!r} is named twice, as {found[path][0]} and as {text}")
            _check_layer(path, modules[path], *way, ranks)
    _check_ties(modules, found)
    return found


def _way(text: str) -> tuple[str, int]:
    kind, colon, count = text.partition(":")
    if (kind == "row" and not colon) or (kind == "column" and (not colon or (count.isdecimal() and int(count) > 0))):
        return kind, int(count or 1)
    raise ValueError(f"tensor_parallel: a layer is 'column', 'row', or 'column:3' of three parts; got {text!r}")


def _check_layer(path: str, module: nn.Module, kind: str, parts: int, ranks: int) -> None:
    if type(module) is not nn.Linear:
        raise ValueError(
            f"tensor_parallel: {path!r} is a {type(module).__name__}, and only an nn.Linear can be cut: choose a "
            "narrower pattern, or leave the module whole on each process"
        )
    size, name = (module.out_features, "outputs") if kind == "column" else (module.in_features, "inputs")
    if size % (parts * ranks):
        each = f", in {parts} parts," if parts > 1 else ""
        raise ValueError(f"tensor_parallel: {path!r} has {size} {name}, which{each} {ranks} processes cannot share")


def _check_ties(modules: Mapping[str, nn.Module], found: Mapping[str, Any]) -> None:
    places: dict[int, list[str]] = {}
    for path, module in modules.items():
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            places.setdefault(id(parameter), []).append(f"{path}.{key}")
    for names in places.values():
        if len(names) > 1 and (cut := [name for name in names if name.rpartition(".")[0] in found]):
            others = ", ".join(name for name in names if name != cut[0])
            raise ValueError(f"tensor_parallel: {cut[0]!r} is tied to {others}, and a tied parameter stays whole")


def sliced_network(network: Network, layers: Mapping[str, tuple[str, int]], group: Group) -> Network:
    """The network that runs these layers in slices."""
    return network.with_slices(
        [SlicedLayer(path, kind == "column", group.handle) for path, (kind, _) in layers.items()]
    )


@dataclass(frozen=True)
class Slicing:
    """The slices of a state's leaves.

    Attributes:
        params: by name; what is not there stays whole.
        opt_state, ema: in the order of the leaves.
        rank: of this process among those that share them.
    """

    params: Mapping[str, Slice]
    opt_state: Slices
    ema: Slices
    rank: int

    def own(self, state: TrainState) -> TrainState:
        """This process's slices of a whole state."""
        window = state.accumulator
        if window is not None:
            window = dataclasses.replace(window, grads=self._own_params(window.grads))
        return state.replace(
            params=self._own_params(state.params),
            opt_state=self._own_tree(state.opt_state, self.opt_state),
            ema=self._own_tree(state.ema, self.ema),
            accumulator=window,
        )

    def _own_params(self, params: Params) -> Params:
        return {
            name: p if (cut := self.params.get(name)) is None else cut.own(p, self.rank) for name, p in params.items()
        }

    def _own_tree(self, tree: Any, slices: Slices) -> Any:
        leaf_list, spec = flatten(tree)
        pairs = zip(leaf_list, slices, strict=True)
        return unflatten(spec, [leaf if cut is None else cut.own(leaf, self.rank) for leaf, cut in pairs])


def slicing(state: TrainState, layers: Mapping[str, tuple[str, int]], group: Group) -> Slicing:
    """The slices of a whole state, for layers as of `layers_of`."""
    found = {}
    for path, (kind, parts) in layers.items():
        found[f"{path}.weight"] = Slice(0 if kind == "column" else 1, parts, group.size)
        if kind == "column":
            found[f"{path}.bias"] = Slice(0, parts, group.size)
    params = {name: cut for name, cut in found.items() if name in state.params}

    def like_params(tree: Any) -> Slices:
        return like_their_params(tree, state.params, params)

    return Slicing(params, like_params(state.opt_state), like_params(state.ema), group.rank)
