"""Where the tensors are in a tree of tensors and host values."""

from dataclasses import dataclass
from typing import Any

import optree
from torch import Tensor

from functrain.foundation.trees import unflatten
from functrain.step.execution import HOST


@dataclass(frozen=True)
class Layout:
    """Where the tensors are in a tree: everything about it but the tensors and host values themselves."""

    spec: optree.PyTreeSpec
    is_tensor: tuple[bool, ...]

    @classmethod
    def of(cls, leaf_list: list[Any], spec: optree.PyTreeSpec) -> "Layout":
        """The layout of flattened leaves."""
        return cls(spec, tuple(isinstance(leaf, Tensor) for leaf in leaf_list))

    def tensors(self, leaf_list: list[Any]) -> list[Tensor]:
        """The tensors among the leaves."""
        return [leaf for leaf, is_tensor in zip(leaf_list, self.is_tensor) if is_tensor]

    def fill(self, tensors: list[Tensor], hosts: list[Any] | None = None) -> Any:
        """The tree with these tensors; host values are taken from `hosts`, a list of all leaves."""
        if len(tensors) == len(self.is_tensor):
            return unflatten(self.spec, tensors)
        iterator = iter(tensors)
        host_leaves = [HOST] * len(self.is_tensor) if hosts is None else hosts
        return unflatten(
            self.spec,
            [next(iterator) if is_tensor else host for host, is_tensor in zip(host_leaves, self.is_tensor)],
        )
