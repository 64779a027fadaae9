"""Sums of a window over the processes, by strategy: of whole gradients, into shards or whole."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from functrain.distributed.layout import Cut
from functrain.distributed.mesh import Mesh
from functrain.distributed.messages import gather_all, in_rows, joined_rows, scatter_sums, sum_all, sum_whole
from functrain.foundation.trees import flatten, unflatten
from functrain.step.parts import add_parts
from functrain.step.state import Params, Part
from functrain.step.tree import sum_in_order, sum_in_tree


@dataclass(frozen=True, eq=False)
class Sums:
    """How parts of a window are added over the processes.

    Attributes:
        mesh: the processes.
        in_tree: whether sums are exact.
        cuts: of the gradients as the optimizer takes them, by name.
        kept: the gradients of which a window keeps this process's shard of their sum over the processes.
    """

    mesh: Mesh
    in_tree: bool
    cuts: Mapping[str, Cut | None]
    kept: frozenset[str]

    def to_keep(self, part: Part) -> Part:
        """What a window keeps of a micro-batch."""
        return dataclasses.replace(part, grads=self._with_sums(part.grads, self.kept, [True] * self.mesh.data.size))

    def sum(self, part: Part, counts: Sequence[int]) -> tuple[Part, list[int]]:
        """The sum over the processes; gradients as the optimizer takes them."""
        if self.mesh.data.size == 1:
            return part, list(counts)
        names = part.names
        if not self.in_tree and part.metrics is None:
            return self._sum_at_once(part, counts)
        small = dataclasses.replace(part, grads={}, names=())
        leaves, spec = flatten(small)
        *gathered, numbers = gather_all([*leaves, torch.tensor(counts, device=part.sums.device)], self.mesh.data)
        present = [bool(count) for count in numbers[:, 0].tolist()]
        parts = [unflatten(spec, [leaf[rank] for leaf in gathered]) for rank in range(self.mesh.data.size)]
        add = sum_in_tree if self.in_tree else sum_in_order
        total: Part = add([each if here else None for each, here in zip(parts, present)], add_parts)
        grads = self._rest_summed(part.grads, present)
        return dataclasses.replace(total, grads=grads, names=names), numbers.sum(0).tolist()

    def _sum_at_once(self, part: Part, counts: Sequence[int]) -> tuple[Part, list[int]]:
        """Of numbers that need no order: one message for all that are not gradients. float64 holds each exactly."""
        averaged = {name: leaf for name, leaf in part.buffers.items() if leaf.is_floating_point()}
        leaves = [part.sums, part.used, *averaged.values(), torch.tensor(counts, device=part.sums.device)]
        sums, used, *buffers, numbers = sum_all([leaf.double() for leaf in leaves], self.mesh.data)
        summed = {name: total.to(part.buffers[name].dtype) for name, total in zip(averaged, buffers)}
        return Part(
            self._rest_summed(part.grads, [True] * self.mesh.data.size),
            sums,
            part.buffers | summed,
            used > 0,
            names=part.names,
        ), [int(number) for number in numbers.tolist()]

    def _rest_summed(self, grads: Params, present: Sequence[bool]) -> Params:
        """The gradients of a window as the optimizer takes them."""
        return self._with_sums(grads, grads.keys() - self.kept, present)

    def _with_sums(self, grads: Params, names: Collection[str], present: Sequence[bool]) -> Params:
        """The gradients, those of these names summed. The dictionary is emptied if there are any."""
        if not names:
            return grads
        order = list(grads)
        found = self._summed_grads({name: grads.pop(name) for name in order if name in names}, present)
        found |= grads
        grads.clear()
        return {name: found[name] for name in order}

    def _summed_grads(self, grads: Params, present: Sequence[bool]) -> Params:
        """Sums of whole gradients, each cut or whole, as the optimizer takes it. The dictionary is emptied."""

        cuts = {name: self.cuts.get(name) for name in grads}
        if not self.in_tree and not any(cuts.values()):
            names, values = list(grads), list(grads.values())
            grads.clear()
            return dict(zip(names, sum_all(values, self.mesh.data)))
        # What stays whole is cut too, for the sum: each process adds a part of it, and gathers the others'.
        shards, shapes = self.mesh.shards, {name: grad.shape for name, grad in grads.items()}
        rows = [
            in_rows(grad, shards.size) if (cut := cuts[name]) is None else cut.rows_by_rank(grad)
            for name, grad in grads.items()
        ]
        grads.clear()  # a bucket's gradients are forgotten once they are in it
        first = self.mesh.replicas.rank * shards.size
        add = self._adder(present[first : first + shards.size])
        sums = dict(zip(shapes, self._over_replicas(scatter_sums(rows, shards, add), present)))
        whole = [name for name in shapes if cuts[name] is None]
        gathered = dict(zip(whole, gather_all([sums[name] for name in whole], shards)))
        return {
            name: joined_rows(gathered[name], shape)
            if (cut := cuts[name]) is None
            else sums[name].view(cut.rows_of_rank, *shape[1:])
            for name, shape in shapes.items()
        }

    def _over_replicas(self, sums: list[Tensor], present: Sequence[bool]) -> list[Tensor]:
        """The sums of all replicas of a shard: of neighbouring branches of the tree, if there is one."""
        replicas, size = self.mesh.replicas, self.mesh.shards.size
        if replicas.size == 1:
            return sums
        if not self.in_tree:
            return sum_all(sums, replicas)
        groups = [any(present[first : first + size]) for first in range(0, len(present), size)]
        return sum_whole(sums, replicas, self._adder(groups))

    def _adder(self, present: Sequence[bool]) -> Callable[[Sequence[Tensor]], Tensor]:
        """What adds the tensors of processes, of which some are absent; where all are, the sum is for no use."""
        combine = sum_in_tree if self.in_tree else sum_in_order

        def add(rows: Sequence[Tensor]) -> Tensor:
            there: list[Tensor | None] = [row if here else None for row, here in zip(rows, present)]
            return combine(there, torch.add) if any(present) else rows[0]

        return add
