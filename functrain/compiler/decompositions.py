"""A step's graph in the form that inductor takes: its operations broken down, and nothing written in place.

Inductor's own export runs the graph twice more to bring it there. Here the operations are broken down while the step is
traced, and only a graph that writes in place is run once more.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

Table = Mapping[Any, Callable[..., Any]]

_READY = "functrain_ready"  # among the metadata of a graph
_COPY = torch.ops.aten.copy_.default


@contextlib.contextmanager
def inductors_table(settings: Mapping[str, Any]) -> Iterator[Table]:
    """What inductor breaks operations down into; its settings are in force within, as some of it asks for them."""
    from torch._inductor import config
    from torch._inductor.decomposition import select_decomp_table

    with config.patch(dict(settings)):
        yield select_decomp_table()


def made_ready(module: GraphModule, table: Table) -> GraphModule:
    """A graph traced with inductor's table that needs no export, if it can be brought there; else the graph."""
    if any(isinstance(each, GraphModule) for each in module.children()):  # branches, which the export knows
        return module
    ready = module
    if not writes_at_the_end_only(module.graph):
        with contextlib.suppress(Exception):  # inductor's own export may know how
            ready = _without_writes(module, table)
    if not writes_at_the_end_only(ready.graph):
        return module
    ready.meta[_READY] = True
    return ready


def is_ready(module: GraphModule) -> bool:
    """Whether `made_ready` brought the graph there."""
    return bool(module.meta.get(_READY))


def _without_writes(module: GraphModule, table: Table) -> GraphModule:
    """The graph run once more, with a new value in place of each that is written to, broken down as all others."""
    fakes = [node.meta["val"] for node in module.graph.find_nodes(op="placeholder")]
    with torch.no_grad():
        functional = torch.func.functionalize(module, remove="mutations")
        return make_fx(functional, table, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes)


def writes_at_the_end_only(graph: Graph) -> bool:
    """Whether a graph's only writes are copies into inputs, after all else, that no result and no other copy can see.

    Example:
        >>> def step(x, y):
        ...     x.copy_(x + y)
        ...     return [y * 2]
        >>> graph = make_fx(step)(torch.ones(2), torch.ones(2)).graph
        >>> writes_at_the_end_only(graph)  # y * 2 comes after the copy
        False
    """
    inputs: set[Node] = set()  # and their views
    copies = False
    for node in graph.nodes:
        if node.op == "placeholder":
            inputs.add(node)
        elif node.op == "output":
            return not (copies and inputs.intersection(node.all_input_nodes))
        elif node.target is _COPY:
            copies = True
            if node.args[0].op != "placeholder" or node.args[1] in inputs or node.users:
                return False
        elif node.op == "call_function":
            if copies or _writes(node):
                return False
            if _is_view(node) and inputs.intersection(node.all_input_nodes):
                inputs.add(node)
    return True


def _writes(node: Node) -> bool:
    """Whether a function writes in place, for all that is known. (Functions without a schema are Python's own.)"""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.is_mutable
    return isinstance(node.target, torch._ops.OperatorBase)


def _is_view(node: Node) -> bool:
    """Whether what a function gives may share memory with what it was given."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    return any(argument.alias_info is not None for argument in node.target._schema.arguments)
