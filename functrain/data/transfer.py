"""Batches to the device that trains. Imports torch, numpy and `functrain.foundation`."""

from typing import Any

import numpy as np
import torch

from functrain.foundation.trees import flatten, unflatten


def to_device(batch: Any, device: torch.device | str, non_blocking: bool = False) -> Any:
    """The batch with its tensors on `device` and its NumPy arrays as tensors there.

    Args:
        batch: any tree; leaves that are neither tensors nor arrays stay as they are, except that an
            object with a method `to` (a graph, a tokenizer's output) is asked to move itself.
        device: where to.
        non_blocking: do not wait for copies from pinned memory.

    Example:
        >>> to_device({"inputs": np.zeros(2), "name": "a"}, "cpu")
        {'inputs': tensor([0., 0.], dtype=torch.float64), 'name': 'a'}
    """

    def move(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            if leaf.dtype.kind not in "biufc":
                return leaf
            leaf = torch.from_numpy(leaf if leaf.flags.writeable else leaf.copy())
        if isinstance(leaf, torch.Tensor):
            return leaf.to(device, non_blocking=non_blocking)
        return leaf.to(device) if callable(getattr(leaf, "to", None)) else leaf

    leaf_list, spec = flatten(batch)
    device = torch.device(device)
    if all(type(leaf) is torch.Tensor and leaf.device == device for leaf in leaf_list):
        return batch  # the usual case on a CPU, at each step
    return unflatten(spec, list(map(move, leaf_list)))
