"""Names and conversions of floating-point types."""

from collections.abc import Mapping
from typing import Any

import torch

from functrain.foundation.trees import tree_map

PRECISIONS: Mapping[str, tuple[torch.dtype, torch.dtype]] = {
    # name: (parameters and sums, forward and backward)
    "fp32": (torch.float32, torch.float32),
    "fp64": (torch.float64, torch.float64),
    "bf16": (torch.float32, torch.bfloat16),
    "fp16": (torch.float32, torch.float16),
}


def cast_floating(tree: Any, dtype: torch.dtype) -> Any:
    """Cast the real floating-point tensors of a tree to `dtype`; every other leaf stays as it is.

    Example:
        >>> cast_floating((torch.zeros(1), torch.tensor(7)), torch.float64)
        (tensor([0.], dtype=torch.float64), tensor(7))
    """
    kind = type(tree)
    if kind is tuple or kind is list or kind is torch.Tensor:
        for leaf in (tree,) if kind is torch.Tensor else tree:
            if type(leaf) is not torch.Tensor or (leaf.dtype is not dtype and leaf.dtype.is_floating_point):
                break
        else:
            return tree  # the usual case, at each step, without flattening
    return tree_map(lambda leaf: leaf.to(dtype) if is_floating(leaf) else leaf, tree)


def is_floating(leaf: Any) -> bool:
    """Whether `leaf` is a real floating-point tensor."""
    return isinstance(leaf, torch.Tensor) and leaf.dtype.is_floating_point
