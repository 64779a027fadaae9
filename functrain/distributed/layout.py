"""Which leaves of a state are kept in shards, and how a leaf is cut and put together.

A leaf is cut along its first dimension into `chunks` chunks of as many rows, the last ones filled up with zeros, and a
process keeps its run of them. So all shards of a leaf have one shape, and one program serves all processes; and with a
fixed number of chunks a sum over a chunk does not depend on the number of processes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor

from functrain.foundation.trees import flatten, unflatten
from functrain.step.state import Params, TrainState
from functrain.step.used import owners

C = TypeVar("C")
MOST_PADDING = 1.5  # rows with those that fill it up, over its rows: a leaf of more is not cut


@dataclass(frozen=True)
class Cut:
    """How a leaf is cut.

    Attributes:
        rows: of the whole leaf.
        chunks: into how many it is cut.
        ranks: how many processes share them; a divisor of `chunks`.

    Example:
        >>> import torch
        >>> cut = Cut(rows=5, chunks=4, ranks=2)
        >>> cut.rows_of_chunk, cut.rows_of_rank, cut.own(torch.arange(5), 1)
        (2, 4, tensor([4, 0, 0, 0]))
        >>> cut.whole(torch.stack([cut.own(torch.arange(5), rank) for rank in range(2)]))
        tensor([0, 1, 2, 3, 4])
    """

    rows: int
    chunks: int
    ranks: int

    @property
    def rows_of_chunk(self) -> int:
        """Rows of a chunk, filled up."""
        return -(-self.rows // self.chunks)

    @property
    def rows_of_rank(self) -> int:
        """Rows that a process keeps, filled up."""
        return self.rows_of_chunk * (self.chunks // self.ranks)

    def padded(self, leaf: Tensor) -> Tensor:
        """The whole leaf, filled up to as many rows for each process."""
        missing = self.rows_of_rank * self.ranks - self.rows
        return F.pad(leaf, (0, 0) * (leaf.ndim - 1) + (0, missing)) if missing else leaf

    def rows_by_rank(self, leaf: Tensor) -> Tensor:
        """The whole leaf, `[ranks, elements]`: what each process keeps of it in a row."""
        return self.padded(leaf).reshape(self.ranks, -1)

    def own(self, leaf: Tensor, rank: int) -> Tensor:
        """A process's shard of a whole leaf, in memory of its own."""
        begin = rank * self.rows_of_rank
        rows = leaf[begin : begin + self.rows_of_rank]
        missing = self.rows_of_rank - len(rows)
        return F.pad(rows, (0, 0) * (leaf.ndim - 1) + (0, missing)) if missing else rows.clone()

    def whole(self, shards: Tensor) -> Tensor:
        """The whole leaf of the shards of all processes, `[ranks, rows_of_rank, ...]`."""
        return shards.reshape(-1, *shards.shape[2:])[: self.rows]

    def chunks_of(self, leaf: Tensor, first: int, count: int) -> list[Tensor]:
        """Chunks of rows, without what fills them up, of a leaf whose first row is that of the chunk `first`."""
        size = self.rows_of_chunk
        ends = (min((first + number + 1) * size, self.rows) - first * size for number in range(count))
        return [leaf[number * size : max(end, number * size)] for number, end in enumerate(ends)]


def cut_of(leaf: Tensor, chunks: int, ranks: int) -> Cut | None:
    """How a leaf is cut; None: it stays whole on every process, as it has too few rows.

    Example:
        >>> import torch
        >>> cut_of(torch.zeros(64, 3), 8, 2)
        Cut(rows=64, chunks=8, ranks=2)
        >>> cut_of(torch.zeros(9, 3), 8, 2) is None
        True
    """
    if not leaf.ndim or len(leaf) < chunks:
        return None
    cut = Cut(len(leaf), chunks, ranks)
    return cut if cut.rows_of_chunk * chunks <= MOST_PADDING * cut.rows else None


Cuts = tuple[Cut | None, ...]


@dataclass(frozen=True)
class Layout:
    """The cuts of a state's leaves, in the order of each field's leaves.

    Attributes:
        params: of the parameters, by name, as they are kept: none are cut where each process keeps them whole.
        updated: of the trainable parameters, by name, as the optimizer takes them.
        opt_state, ema: likewise; a leaf of a parameter's form is cut as the parameter is.
    """

    params: tuple[tuple[str, Cut | None], ...]
    updated: tuple[tuple[str, Cut | None], ...]
    opt_state: Cuts
    ema: Cuts

    @classmethod
    def of(cls, state: TrainState, *, chunks: int, ranks: int, cuts_params: bool, cuts_updates: bool) -> "Layout":
        """Of a whole state.

        Args:
            state: it.
            chunks, ranks: as of a `Cut`.
            cuts_params: whether parameters are kept in shards.
            cuts_updates: whether what the optimizer works on is.
        """
        cuts_updates = cuts_updates and ranks > 1
        cuts = {name: cut_of(leaf, chunks, ranks) if cuts_updates else None for name, leaf in state.params.items()}
        trainable = state.recipe.network.trainable
        return cls(
            tuple((name, cut if cuts_params else None) for name, cut in cuts.items()),
            tuple((name, cuts[name]) for name in trainable),
            like_their_params(state.opt_state, state.params, cuts),
            like_their_params(state.ema, state.params, cuts),
        )

    @property
    def is_cut(self) -> bool:
        """Whether any leaf is."""
        return any(cut for _, cut in self.updated) or any(self.opt_state) or any(self.ema)


def like_their_params(tree: Any, params: Params, cuts: Mapping[str, C]) -> tuple[C | None, ...]:
    """Cuts of a tree's leaves, of any kind: those of a parameter's that have its shape."""
    leaf_list, spec = flatten(tree)
    names = tuple(params)
    found = ((leaf, None if owner is None else names[owner]) for leaf, owner in zip(leaf_list, owners(spec, names)))
    return tuple(
        [
            cuts.get(name) if name and isinstance(leaf, Tensor) and leaf.shape == params[name].shape else None
            for leaf, name in found
        ]
    )


def own_leaves(leaves: Iterable[Any], cuts: Iterable[Cut | None], rank: int) -> list[Any]:
    """This process's shards of whole leaves; those that are not cut stay as they are."""
    return [leaf if cut is None else cut.own(leaf, rank) for leaf, cut in zip(leaves, cuts, strict=True)]


def own_tree(tree: Any, cuts: Cuts, rank: int) -> Any:
    """Likewise, of a tree."""
    leaf_list, spec = flatten(tree)
    return unflatten(spec, own_leaves(leaf_list, cuts, rank))


def own_params(params: Params, cuts: Mapping[str, Cut | None], rank: int) -> Params:
    """Likewise, by name; a parameter without an entry stays whole."""
    return {name: leaf if (cut := cuts.get(name)) is None else cut.own(leaf, rank) for name, leaf in params.items()}
