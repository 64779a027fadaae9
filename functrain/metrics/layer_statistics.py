"""What gradients and updates look like, layer by layer.

Pure functions of trees, made of tensor operations alone: they run inside a compiled step and never wait for the
device. All numbers of a tree are one tensor, so that a graph has one output more, not one for each number.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.trees import leaves, leaves_with_paths, node, static, structure

STATISTICS = ("norm", "mean", "max", "zeros")
RATIO = "ratio"


@node
class Statistics:
    """Numbers of each layer.

    Attributes:
        values: `[layers, statistics]`, float32 (float64 of a float64 tree), without gradient.
        layers: name of each row.
        statistics: name of each column: "norm" (Euclidean), "mean", "max" (of the magnitudes), "zeros" (the fraction
            of elements that are exactly 0); of updates "ratio" too, the update's norm to the weights'.
    """

    values: Tensor
    layers: tuple[str, ...] = static()
    statistics: tuple[str, ...] = static()

    def metrics(self, prefix: str) -> dict[str, Tensor]:
        """Name "prefix/layer/statistic" -> 0-d tensor.

        Example:
            >>> sorted(tree_statistics({"w": torch.ones(2)}).metrics("grad"))
            ['grad/w/max', 'grad/w/mean', 'grad/w/norm', 'grad/w/zeros']
        """
        names = [f"{prefix}/{layer}/{statistic}" for layer in self.layers for statistic in self.statistics]
        return dict(zip(names, self.values.flatten(-2).unbind(-1)))


def each_parameter(path: str) -> str:
    """Every parameter is a layer of its own."""
    return path


def module_of(path: str) -> str:
    """The module that a parameter belongs to: its weight and bias are one layer.

    Example:
        >>> module_of("encoder.0.weight"), module_of("scale")
        ('encoder.0', 'scale')
    """
    return path.rpartition(".")[0] or path


LAYERS: Mapping[str, Callable[[str], str]] = {"parameter": each_parameter, "module": module_of}


def tree_statistics(tree: Any, *, layer: Callable[[str], str] = each_parameter) -> Statistics:
    """Norm, mean, largest magnitude and fraction of zeros of each layer of a tree, such as gradients.

    Not finite elements make their layer's numbers so, which shows where an overflow began.

    Args:
        tree: floating-point tensors, of any shapes.
        layer: from the path of a leaf, as `foundation.trees.paths` names it, to that of its layer; leaves of one
            layer are taken together. For example `each_parameter` or `module_of`.

    Raises:
        ValueError: for a tree without leaves.

    Example:
        >>> found = tree_statistics({"w": torch.tensor([3.0, -4.0]), "b": torch.zeros(1)})
        >>> found.layers, found.values
        (('b', 'w'), tensor([[ 0.0000,  0.0000,  0.0000,  1.0000],
                             [ 5.0000, -0.5000,  4.0000,  0.0000]]))
    """
    groups = _groups(tree, layer)
    rows = [torch.stack(_numbers(group)) for group in groups.values()]
    return Statistics(_stacked(rows), tuple(groups), STATISTICS)


def update_statistics(updates: Any, params: Any, *, layer: Callable[[str], str] = each_parameter) -> Statistics:
    """The statistics of a tree of updates, and the ratio of each layer's update to its weights, norm by norm.

    A ratio near 1e-3 is usual; a layer far above the others is about to diverge, one far below hardly learns.
    The ratio is NaN where all weights are 0.

    Args:
        updates: what is added to the parameters.
        params: the parameters before, of the same structure.
        layer: as of `tree_statistics`.

    Raises:
        ValueError: for a tree without leaves, or trees of two structures.

    Example:
        >>> found = update_statistics({"w": torch.tensor([0.03, -0.04])}, {"w": torch.tensor([3.0, 4.0])})
        >>> found.metrics("update")["update/w/ratio"]
        tensor(0.0100)
    """
    if structure(updates) != structure(params):
        raise ValueError(
            f"updates and parameters must have one structure; got {structure(updates)} and {structure(params)}"
        )
    found = tree_statistics(updates, layer=layer)
    weights = torch.stack([_norm(group).to(found.values.dtype) for group in _groups(params, layer).values()])
    ratio = torch.where(weights > 0, found.values[:, 0] / weights, float("nan"))
    return Statistics(torch.cat([found.values, ratio[:, None]], 1), found.layers, (*STATISTICS, RATIO))


def _groups(tree: Any, layer: Callable[[str], str]) -> dict[str, list[Tensor]]:
    if not leaves(tree):
        raise ValueError("statistics need a tree with tensors in it; got one without leaves")
    groups: dict[str, list[Tensor]] = {}
    for path, leaf in leaves_with_paths(tree):
        wide = leaf.detach().to(torch.promote_types(leaf.dtype, torch.float32))
        groups.setdefault(layer(path), []).append(wide)
    return groups


def _norm(group: list[Tensor]) -> Tensor:
    """The norm of all elements, summed in float64, in which squares of float32 numbers do not overflow."""
    norms = [torch.linalg.vector_norm(leaf, dtype=torch.float64) for leaf in group]
    return torch.linalg.vector_norm(torch.stack(norms))


def _numbers(group: list[Tensor]) -> list[Tensor]:
    """Norm, mean, largest magnitude and fraction of zeros; of no element, 0."""
    elements = max(sum(leaf.numel() for leaf in group), 1)
    mean = _stacked([leaf.sum() for leaf in group]).sum() / elements
    zeros = _stacked([(leaf == 0).sum() for leaf in group]).sum().to(mean.dtype) / elements
    largest = _stacked([leaf.abs().amax() if leaf.numel() else leaf.new_zeros(()) for leaf in group]).amax()
    return [_norm(group).to(mean.dtype), mean, largest.to(mean.dtype), zeros]


def _stacked(tensors: list[Tensor]) -> Tensor:
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return torch.stack([tensor.to(dtype) for tensor in tensors])
