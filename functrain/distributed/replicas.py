"""Data parallelism: every rank has the whole state and a part of each micro-batch.

Gradients, weights and metric sums are added over the ranks, and divided once by the sum of all weights, so the
update is that of one process with the whole batch, up to the order of summation, however uneven the parts.
The sums travel in buckets, see `messages`.
"""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from functrain.distributed.messages import buckets
from functrain.distributed.world import World, aside, current_world
from functrain.foundation.torch_internals import all_reduced
from functrain.foundation.trees import flatten, tensors, tree_map, unflatten
from functrain.metrics.measuring import Measured
from functrain.metrics.totals import Totals
from functrain.objectives.examples import length_of, map_examples, require_examples
from functrain.optim import global_norm
from functrain.step.state import TrainState


def sum_over_ranks(parts: Sequence[Tensor], group: Any = None) -> list[Tensor]:
    """Each tensor added over the ranks; traceable, out of place.

    Args:
        parts: tensors of any dtype.
        group: of all ranks; None: the one of compiled steps.

    With one process:
        >>> sum_over_ranks([torch.ones(2)])
        [tensor([1., 1.])]
    """
    if current_world().size == 1:
        return list(parts)
    group = dist.group.WORLD if group is None else group
    assert group is not None
    summed: list[Tensor] = list(parts)
    # In a graph what is added is written into the bucket, so a large tensor gains nothing by travelling alone.
    for places in buckets(parts, current_world().size, alone=False):
        bucket = torch.cat([parts[place].reshape(-1) for place in places])
        pieces = all_reduced(bucket, group).split([parts[place].numel() for place in places])
        for place, piece in zip(places, pieces):
            summed[place] = piece.view(parts[place].shape)
    return summed


@dataclass(frozen=True)
class Replicas:
    """Processes that all have the whole state.

    Attributes:
        rank, ranks: the number of this process, and how many there are.
    """

    rank: int
    ranks: int

    def gather(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """They are whole."""
        return params

    def reduce(self, grads: dict[str, Tensor], sums: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """All sums, in buckets for each dtype."""
        summed = sum_over_ranks([*grads.values(), *sums])
        return dict(zip(grads, summed)), summed[len(grads) :]

    def norm(self, grads: dict[str, Tensor]) -> Tensor:
        """Each process has all gradients."""
        return global_norm(grads)


def replicate(state: TrainState, world: World) -> TrainState:
    """The state of rank 0 on every rank, with a recipe that adds over the ranks. Every rank must call it."""
    if world.size == 1:
        return state
    leaf_list, spec = flatten(state)
    for leaf in tensors(state):
        _check_replicable(leaf)
    copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaf_list]
    for leaf in copies:
        if isinstance(leaf, Tensor):
            dist.broadcast(leaf, 0)
    hosts = [leaf for leaf in copies if not isinstance(leaf, Tensor)]
    dist.broadcast_object_list(hosts, 0)
    iterator = iter(hosts)
    leaf_list = [leaf if isinstance(leaf, Tensor) else next(iterator) for leaf in copies]
    replica = unflatten(spec, leaf_list)
    recipe = dataclasses.replace(state.recipe, collectives=Replicas(world.rank, world.size))
    return replica.replace(recipe=recipe)


def part_of(batch: Any, world: World, *, lists: bool = False) -> Any:
    """This rank's examples of a batch: rank, rank + size, ...

    Args:
        batch: any batch.
        world: this rank among others.
        lists: as `takes_lists` says of the objective.

    Raises:
        ValueError: if the examples cannot be shared out evenly.
        TypeError: if the batch cannot be cut into examples.

    Example:
        >>> part_of((torch.arange(4), torch.arange(4)), World(1, 2))
        (tensor([1, 3]), tensor([1, 3]))
    """
    if world.size == 1:
        return batch
    require_examples(batch, "training on several ranks", lists=lists)
    length = length_of(batch, lists=lists)
    if length % world.size:
        raise ValueError(
            f"a batch of {length} examples cannot be shared evenly by {world.size} ranks: choose a batch size "
            "that is a multiple of it, with drop_last=True or an objective that takes weights"
        )
    return map_examples(lambda examples: examples[world.rank :: world.size], batch, length, lists=lists)


def totals_over_ranks(totals: Totals) -> Totals:
    """Evaluation totals of all ranks together; what grows with the examples is sent whole."""
    world, measured = current_world(), totals.measured
    if measured is not None and world.size > 1:
        gathered: list[Any] = [None] * world.size
        dist.all_gather_object(gathered, tree_map(Tensor.cpu, measured.accumulators), group=aside())
        parts = [Measured(each, measured.measures) for each in gathered]
        measured = functools.reduce(operator.add, parts)
    summed = totals.sums if world.size == 1 else sum_over_ranks([totals.sums], aside())[0]
    return Totals(summed, totals.names, measured)


def _check_replicable(leaf: Tensor) -> None:
    if not leaf.is_contiguous():
        raise ValueError(f"a state that is replicated needs contiguous tensors, got strides {leaf.stride()}")
