"""Models of torch_geometric: the batch is one of its Data objects."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measuring import Case
from torch import Tensor, nn

import functrain as ft

NODES, EDGES, FEATURES = 20, 60, 8
LAYERS = [
    "GATv2Conv",
    "TransformerConv",
    "TAGConv",
    "GraphConv",
    "SGConv",
    "ARMAConv",
    "ClusterGCNConv",
    "EGConv",
    "FeaStConv",
    "GENConv",
    "GeneralConv",
    "LEConv",
    "MFConv",
    "ResGatedGraphConv",
    "SuperGATConv",
]
SELF_LOOPS = ["GCNConv", "GATConv", "GATv2Conv", "SGConv", "SuperGATConv"]


def graph() -> Any:
    """A graph of which half the nodes are trained on."""
    from torch_geometric.data import Data

    generator = torch.Generator().manual_seed(1)
    return Data(
        x=torch.randn(NODES, FEATURES, generator=generator),
        edge_index=torch.randint(NODES, (2, EDGES), generator=generator),
        y=torch.randint(3, (NODES,), generator=generator),
        train_mask=torch.arange(NODES) % 2 == 0,
    )


def graphs() -> Any:
    """A batch of three graphs with a class each."""
    from torch_geometric.data import Batch

    parts = []
    for number in range(3):
        part = graph()
        part.y = torch.tensor([number])
        del part.train_mask
        parts.append(part)
    return Batch.from_data_list(parts)


def node_loss(model: Any, data: Any) -> ft.Loss:
    """Of the nodes that are trained on; a mask is a weight."""
    losses = F.cross_entropy(model(data.x, data.edge_index), data.y, reduction="none")
    mask = data.train_mask.to(losses.dtype)
    return ft.Loss((losses * mask).sum(), mask.sum())


def graph_loss(model: Any, batch: Any) -> ft.Loss:
    """Of whole graphs."""
    losses = F.cross_entropy(model(batch), batch.y, reduction="none")
    return ft.Loss(losses.sum(), losses.new_full((), len(losses)))


class Pooled(nn.Module):
    """A graph network with a class for each graph."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, batch: Any) -> Tensor:
        from torch_geometric.nn import global_mean_pool

        return global_mean_pool(self.body(batch.x, batch.edge_index), batch.batch, size=3)


class Layers(nn.Module):
    """Two layers of one kind."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).relu(), edge_index)


def _nodes(build: Callable[[Any], nn.Module]) -> Case:
    def made() -> tuple[nn.Module, Any]:
        import torch_geometric.nn as gnn

        return build(gnn), graph()

    def loss(model: Any, data: Any) -> Tensor:
        return F.cross_entropy(model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask])

    return Case("torch_geometric", made, node_loss, loss)


def _whole(build: Callable[[Any], nn.Module]) -> Case:
    def made() -> tuple[nn.Module, Any]:
        import torch_geometric.nn as gnn

        return Pooled(build(gnn)), graphs()

    return Case("torch_geometric", made, graph_loss, lambda model, batch: F.cross_entropy(model(batch), batch.y))


def _layers(name: str, **options: Any) -> Callable[[Any], nn.Module]:
    return lambda gnn: Layers(getattr(gnn, name)(FEATURES, 16, **options), getattr(gnn, name)(16, 3, **options))


def cases() -> dict[str, Case]:
    """All of them, by name."""
    models = {
        name: _nodes(lambda gnn, name=name: getattr(gnn, name)(FEATURES, 16, 2, 3))
        for name in ("GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN")
    }
    layers = {name: _layers(name) for name in LAYERS}
    layers["ChebConv"] = _layers("ChebConv", K=2)
    layers["EGConv"] = _layers("EGConv", num_heads=1)
    layers["SAGEConv, largest"] = _layers("SAGEConv", aggr="max")
    for name in SELF_LOOPS:  # added beforehand, as by the transform AddSelfLoops
        layers[f"{name} without self-loops"] = _layers(name, add_self_loops=False)
    found = models | {name: _nodes(build) for name, build in layers.items()}
    found["GraphSAGE of whole graphs"] = _whole(lambda gnn: gnn.GraphSAGE(FEATURES, 16, 2, 3))
    found["GCN of whole graphs"] = _whole(lambda gnn: gnn.GCN(FEATURES, 16, 2, 3))
    for name in ("SuperGATConv", "SuperGATConv without self-loops"):  # draws edges, as many as it counts
        found[name] = dataclasses.replace(found[name], refused=("aot_eager", "inductor"))
    return {f"torch_geometric {name}": case for name, case in found.items()}
