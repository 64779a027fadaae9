"""Updates of large parameters where their gradients are known, not at the end of a step's graph.

Only of a step that refuses nothing: else each update waits for all gradients, and nothing moves. Then a gradient is
freed before the next one is computed.
"""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node

from functrain.compiler.patches.updates_apart import EARLY

LARGE = 2**20  # bytes of a leaf that is written


def update_early(graph: Graph) -> None:
    """Move what no product or convolution needs to where it can be computed, if updates of large leaves then differ."""
    nodes = list(graph.nodes)
    writes = [node for node in nodes if _is_write(node) and _bytes(node.args[0]) >= LARGE]
    if len(writes) < 2:
        return
    late = _late(nodes)
    when = _when(nodes, _movable(nodes), late)
    if len({when[write] for write in writes if write in late}) < 2:  # all wait for the same
        return
    assert graph.owning_module is not None
    graph.owning_module.meta[EARLY] = True
    place = {node: number for number, node in enumerate(nodes)}
    previous = nodes[0]
    for node in sorted(nodes[1:], key=lambda node: (when[node], when[node] != place[node], place[node])):
        if node is not previous.next:
            previous.append(node)
        previous = node


def _movable(nodes: Sequence[Node]) -> set[Node]:
    """The nodes without effect that no heavy one needs, directly or not."""
    needed: set[Node] = set()
    for node in reversed(nodes):
        if _is_heavy(node) or any(user in needed for user in node.users):
            needed.add(node)
    return {node for node in nodes if node not in needed and _is_pure(node)}


def _late(nodes: Sequence[Node]) -> set[Node]:
    """The nodes that are heavy, or need one that is, directly or not."""
    found: set[Node] = set()
    for node in nodes:
        if _is_heavy(node) or any(other in found for other in node.all_input_nodes):
            found.add(node)
    return found


def _when(nodes: Sequence[Node], movable: set[Node], late: set[Node]) -> dict[Node, int]:
    """The place of each node: its own, or, of movable ones, that of the last node that it needs.

    What needs nothing heavy, such as a decayed moment, waits for the first that needs it.
    """
    place = {node: number for number, node in enumerate(nodes)}
    when: dict[Node, int] = {}
    for node in nodes:
        before = list(node.all_input_nodes)
        if _is_write(node):
            before += [reader for reader in _readers(node.args[0]) if place[reader] < place[node]]
        when[node] = max((when[other] for other in before), default=0) if node in movable else place[node]
    for node in reversed(nodes):
        if node in movable and node not in late:
            when[node] = min((when[user] for user in node.users), default=place[node])
    return when


def _is_heavy(node: Node) -> bool:
    """Whether it is a product, a convolution or attention."""
    from torch.utils.flop_counter import flop_registry  # imported by nothing before a compilation

    return isinstance(node.target, OpOverload) and node.target.overloadpacket in flop_registry


def _is_pure(node: Node) -> bool:
    """Whether it may move: it draws no random number and sends nothing."""
    if not isinstance(node.target, OpOverload):
        return node.target is operator.getitem
    return node.target.namespace in ("aten", "prims") and torch.Tag.nondeterministic_seeded not in node.target.tags


def _is_write(node: Node) -> bool:
    return node.target is torch.ops.aten.copy_.default


def _readers(node: Any) -> Iterator[Node]:
    """Those that read a tensor, itself or through a view of it."""
    for user in node.users:
        yield user
        if isinstance(user.target, OpOverload) and any(each.alias_info for each in user.target._schema.returns):
            yield from _readers(user)


def _bytes(node: Any) -> int:
    """Of the tensor that an input of the graph is; 0 of anything else."""
    value = node.meta.get("val") if isinstance(node, Node) and node.op == "placeholder" else None
    if not isinstance(value, torch.Tensor) or not all(isinstance(size, int) for size in value.shape):
        return 0
    return value.numel() * value.element_size()
